"""Writing with models of the library transformers."""

import asyncio
import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from actors.engines import hf
from actors.engines.base import Completion, EngineError, Request, load_engine
from actors.engines.sampling import likeliest, uniforms
from actors.plm import generate_block, start_plm
from actors.replicas import parts
from configs.schema.plm import PlmSpec, Sampling, SelfDebias, TransformersEngine

PROMPT = 'The movie review in positive sentiment is: "'
PROMPTS = (PROMPT, "It was bad", "A plain tale, told with care.\n" + PROMPT, "x")


@pytest.fixture(params=["llama", "gpt2", "t5"])
def folder(request):
    return request.getfixturevalue(request.param)


def load(folder, **fields):
    spec = PlmSpec(name="p", engine=TransformersEngine(model=str(folder), device="cpu", **fields))
    return load_engine(spec, ("a", "b"), 0)


def ask(seed: int, prompt: str = PROMPT, **fields) -> Request:
    return Request(f"r{seed}", prompt, seed, 0, 0, 0, 0, True, **fields)


def many(n: int = 12) -> list[Request]:
    return [ask(100 + i, PROMPTS[i % len(PROMPTS)]) for i in range(n)]


FREE = Sampling(max_new_tokens=20, stop=())


def test_a_text_depends_on_its_request_alone(folder):
    engine, requests = load(folder), many()
    # Texts that end at different lengths make the batch shrink on the way.
    sampling = Sampling(max_new_tokens=20, stop=("e", "ab"), top_p=0.95)
    together = engine.generate(requests, sampling)
    assert len({c.completion_tokens for c in together}) > 3
    one_by_one = [engine.generate([request], sampling)[0] for request in requests]
    order = list(range(len(requests)))
    random.Random(0).shuffle(order)
    shuffled = engine.generate([requests[i] for i in order], sampling)
    longest = ask(5, "A long one. " * 8)
    padded = engine.generate([longest, *requests, longest], sampling)
    for other in (one_by_one, [shuffled[order.index(i)] for i in range(len(order))], padded[1:-1]):
        assert [(c.text, c.finish_reason, c.prompt_tokens) for c in other] == [
            (c.text, c.finish_reason, c.prompt_tokens) for c in together
        ]
        assert [c.logprob for c in other] == pytest.approx([c.logprob for c in together], abs=1e-5)
    assert [c.text for c in engine.generate(requests, sampling)] == [c.text for c in together]
    assert len({c.text for c in together}) > 9


@torch.inference_mode()
def written_plainly(folder, tokenizer, request: Request, sampling: Sampling) -> tuple[list[int], float]:
    """The definition, without cache, batch or padding: tokens and their mean log-probability."""
    seq2seq = folder.name.startswith("t5")
    model = (AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM).from_pretrained(folder).eval()
    prompt = torch.tensor([tokenizer(request.prompt)["input_ids"]])
    ends = model.generation_config.eos_token_id
    assert len(ends) == 2
    tokens: list[int] = []
    total = 0.0
    for u in uniforms(request.seed, sampling.max_new_tokens).tolist():
        if seq2seq:
            logits = model(input_ids=prompt, decoder_input_ids=torch.tensor([[0, *tokens]])).logits
        else:
            logits = model(input_ids=torch.cat([prompt, torch.tensor([tokens], dtype=torch.long)], 1)).logits
        logp = logits[0, -1].double().log_softmax(-1)
        p = likeliest(logp.exp()[None], sampling.top_k, sampling.top_p)[0]
        tokens.append(int((p.cumsum(0) > u * p.sum()).nonzero()[0]))
        total += float(logp[tokens[-1]])
        if tokens[-1] in ends:
            break
    return tokens, total / len(tokens)


def test_texts_follow_the_definition(folder, tokenizer):
    requests = many(4)
    for request, completion in zip(requests, load(folder).generate(requests, FREE), strict=True):
        tokens, logprob = written_plainly(folder, tokenizer, request, FREE)
        assert completion.text == tokenizer.decode(tokens, skip_special_tokens=True).removesuffix("z")
        assert completion.completion_tokens == len(tokens)
        assert completion.prompt_tokens == len(tokenizer(request.prompt)["input_ids"])
        assert completion.logprob == pytest.approx(logprob, abs=1e-5)


def test_stop_strings_end_a_text_and_stay_in_it(llama):
    engine, requests = load(llama), many(40)
    free = engine.generate(requests, FREE)
    stopped = engine.generate(requests, FREE.model_copy(update={"stop": ("e", "$")}))
    assert {c.finish_reason for c in stopped} == {"stop", "length"}
    for whole, cut in zip(free, stopped, strict=True):
        assert whole.text.startswith(cut.text)
        assert ("e" in cut.text or "$" in cut.text) <= (cut.finish_reason == "stop")
        assert cut.completion_tokens <= whole.completion_tokens


def test_stop_strings_may_span_tokens_and_bytes(llama):
    engine, requests = load(llama), many(40)
    texts = [c.text for c in engine.generate(requests, FREE)]
    pair = next(
        text[i : i + 2] for text in texts for i in range(4, len(text) - 1) if text[i : i + 2].isascii()
    )
    for text, cut in zip(
        texts, engine.generate(requests, FREE.model_copy(update={"stop": (pair,)})), strict=True
    ):
        assert cut.text.count(pair) <= 1
        assert (cut.finish_reason == "stop") >= (pair in text)
        assert (pair in cut.text) == (pair in text)


def test_end_token_counts_but_is_not_text(folder, tokenizer):
    hot = FREE.model_copy(update={"temperature": 3.0, "top_p": 1.0})
    completions = load(folder).generate([ask(seed) for seed in range(400)], hot)
    ended = [c for c in completions if c.finish_reason == "stop"]
    assert ended
    assert all(c.completion_tokens == 20 for c in completions if c.finish_reason == "length")
    assert not any(end in c.text for c in completions for end in ("z", *tokenizer.all_special_tokens))
    assert any(c.completion_tokens < 20 for c in ended)


def test_nothing_ends_a_text_before_its_least_length(llama):
    requests = [ask(seed) for seed in range(200)]
    engine = load(llama)
    for completion in engine.generate(requests, FREE.model_copy(update={"min_new_tokens": 20})):
        assert (completion.finish_reason, completion.completion_tokens) == ("length", 20)
    late = Sampling(max_new_tokens=20, min_new_tokens=8, stop=("e",))
    for completion in engine.generate(requests, late):
        assert completion.completion_tokens >= 8
        assert ("e" in completion.text) <= (completion.finish_reason == "stop")


def test_top_k_1_is_the_likeliest_text_whatever_the_seed(llama):
    greedy = FREE.model_copy(update={"top_k": 1})
    texts = {c.text for c in load(llama).generate([ask(seed) for seed in range(5)], greedy)}
    assert len(texts) == 1


def test_self_debiasing_follows_all_prompts(folder):
    engine = load(folder)
    sampling = FREE.model_copy(update={"self_debias": SelfDebias()})
    requests = [replace(r, counter_prompts=("It was bad", "x y z")) for r in many(6)]
    damped = engine.generate(requests, sampling)
    assert [c.text for c in damped] == [engine.generate([r], sampling)[0].text for r in requests]
    plain = engine.generate(requests, FREE)
    assert [c.text for c in damped] != [c.text for c in plain]
    assert all(d.prompt_tokens > p.prompt_tokens for d, p in zip(damped, plain, strict=True))
    without = engine.generate(many(6), sampling)
    assert [c.text for c in without] == [c.text for c in plain]
    same = [replace(r, counter_prompts=(r.prompt,)) for r in many(6)]
    assert [c.text for c in engine.generate(same, sampling)] == [c.text for c in plain]


def test_prompts_beyond_the_context_are_errors_of_their_own(llama):
    fine, long = ask(1), ask(2, "word " * 200)
    first, second, empty = load(llama).generate([fine, long, ask(3, "")], FREE)
    assert first.text == load(llama).generate([fine], FREE)[0].text
    assert second.finish_reason == "error"
    assert "exceed the model's context of 128" in second.error
    assert second.text == ""
    assert empty.finish_reason in {"stop", "length", "error"}
    assert load(llama).generate([], FREE) == []


def test_numbers_that_are_none_are_errors(llama):
    engine = load(llama)
    with torch.no_grad():
        engine._model.lm_head.weight.fill_(float("nan"))
    (completion,) = engine.generate([ask(1)], FREE)
    assert completion == Completion("", "error", error="the model's probabilities are not numbers")


CHAT = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def chatty(llama, tmp_path):
    shutil.copytree(llama, tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text(CHAT)
    return tmp_path / "chat"


def test_chat_templates_are_used_and_the_reply_begins_in_the_quote(chatty, llama):
    prompted = '[system]Be brief.\n[user]The movie review in positive sentiment is:\n[assistant]"'
    (talked,) = load(chatty, system="Be brief.").generate([ask(1)], FREE)
    engine = load(llama)
    written = engine.generate([ask(1, prompted)], FREE)[0]
    assert talked.prompt_tokens == written.prompt_tokens - 1  # the template sets its own special tokens
    assert load(chatty, chat="never").generate([ask(1)], FREE) == engine.generate([ask(1)], FREE)
    assert load(chatty).describe()["chat"] == "yes"
    texts = load(chatty, system="Be brief.").texts
    assert texts.tokenizer.decode(texts.ids(PROMPT)) == prompted


def test_description_pins_down_the_weights(llama, gpt2):
    described = load(llama).describe()
    assert described == load(llama).describe()
    assert described["fingerprint"] != load(gpt2).describe()["fingerprint"]
    assert (described["dtype"], described["device"]) == ("float32", "cpu")
    assert load(llama, dtype="bfloat16").describe()["dtype"] == "bfloat16"
    assert load(llama).available(1, 0, False, 10) is None


def broken(folder, tmp_path, *, drop=(), **config):
    copy = tmp_path / "broken"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*drop))
    if config:
        fields = json.loads((copy / "config.json").read_text()) | config
        (copy / "config.json").write_text(json.dumps(fields))
    return copy


def test_folders_that_cannot_work_are_refused_in_one_line(llama, tmp_path):
    def said(folder, **fields) -> str:
        with pytest.raises(EngineError) as caught:
            load(folder, **fields)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert said(tmp_path / "nowhere").endswith("no such folder")
    assert "model.safetensors" in said(broken(llama, tmp_path / "a", drop=["*.safetensors"]))
    assert "config.json" in said(broken(llama, tmp_path / "b", drop=["config.json"]))
    assert said(broken(llama, tmp_path / "c", drop=["tokenizer*"]))
    assert "weights are missing" in said(broken(llama, tmp_path / "d", num_hidden_layers=3))
    assert said(broken(llama, tmp_path / "e", model_type="unheard-of"))
    torn = broken(llama, tmp_path / "f")
    weights = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(weights[:5000])
    assert said(torn)
    assert "has no chat template" in said(llama, chat="always")


def test_pickled_weights_are_not_read(llama, tmp_path):
    folder = broken(llama, tmp_path, drop=["*.safetensors"])
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(EngineError, match=r"model\.safetensors"):
        load(folder)


def test_a_gpu_that_is_not_there_is_said(llama, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = TransformersEngine(model=str(llama), device="cuda")
    with pytest.raises(EngineError, match="no GPU"):
        hf.Transformers(spec)


def on_one_thread(work):
    """The result of `work` computed as in an actor: another number of threads sums in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.long
@pytest.mark.ray
def test_killed_in_the_middle_it_writes_the_same_texts(ray_session, llama, tmp_path):
    import ray

    spec = PlmSpec(
        name="p",
        engine=TransformersEngine(model=str(llama), device="cpu"),
        sampling=Sampling(max_new_tokens=80, min_new_tokens=80),
        num_cpus=0.5,
        request_timeout_s=120,
    )
    begun = tmp_path / "begun"

    def watched(spec, labels, seed):
        engine = load_engine(spec, labels, seed)
        decode = engine._completion

        def completion(row, prompt_tokens):
            with begun.open("a") as log:
                log.write(f"{os.getpid()}\n")
            time.sleep(0.05)  # the block must still be in work when the signal arrives
            return decode(row, prompt_tokens)

        engine._completion = completion
        return engine

    async def run() -> None:
        (handle,) = start_plm(spec, ("a", "b"), 0, load=watched)
        pending = asyncio.ensure_future(generate_block(handle, many(20), spec))
        async with asyncio.timeout(100):
            while not (begun.exists() and begun.read_text().endswith("\n")):
                await asyncio.sleep(0.01)
        os.kill(int(begun.read_text().split()[0]), signal.SIGKILL)
        assert (await pending).fatal  # whether the block is to blame shows when its parts are asked
        answered = [await generate_block(handle, part, spec) for part in parts(many(20))]
        completions = [completion for part in answered for completion in part.completions]
        assert len(set(begun.read_text().split())) == 2
        ray.kill(handle)
        undisturbed = on_one_thread(lambda: load(llama).generate(many(20), spec.sampling))
        assert [c.text for c in completions] == [c.text for c in undisturbed]
        assert [c.logprob for c in completions] == pytest.approx([c.logprob for c in undisturbed])

    asyncio.run(run())
