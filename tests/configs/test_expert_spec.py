"""Live experts in a configuration: what is allowed together, and what is said otherwise."""

import pytest
from pydantic import ValidationError

from configs.schema.base import identity
from configs.schema.foe import FoeConfig

BERT = {"name": "a", "model": {"kind": "classifier", "model": "folder"}}
LLAMA = {"name": "b", "model": {"kind": "generator", "engine": {"model": "folder"}, "judge": "label"}}


def config(*pool, items=None, labels=(), **changes):
    live = {
        "kind": "live",
        "items": {"path": "x.jsonl", **(items or {})},
        "pool": list(pool),
        "labels": labels,
    }
    return FoeConfig.model_validate({"job": "foe", "experts": live, **changes})


def test_answers_are_greedy_and_end_by_themselves_unless_told_otherwise():
    sampling = config(LLAMA).experts.pool[0].model.sampling
    assert (sampling.top_k, sampling.stop, sampling.max_new_tokens) == (1, (), 100)


REMOTE = {"kind": "openai", "url": "http://127.0.0.1:8000/v1", "model": "m"}
FAST = {"kind": "vllm", "model": "m", "blocks": 3}


def test_engines_of_generators_are_of_three_kinds_and_the_first_need_not_say_so():
    engines = ({}, {"engine": FAST}, {"engine": REMOTE})
    pool = [config(changed(LLAMA, **engine)).experts.pool[0] for engine in engines]
    assert [e.model.engine.kind for e in pool] == ["transformers", "vllm", "openai"]
    assert [e.blocks for e in (*pool, config(BERT).experts.pool[0])] == [1, 3, 1, 1]
    with pytest.raises(ValidationError, match="'transformers', 'vllm', 'openai'"):
        config(changed(LLAMA, engine={"kind": "recorded", "path": "x"}))


def test_what_an_expert_may_use_is_not_what_it_is():
    bigger = {**BERT, "num_gpus": 1, "replicas": 3, "answer_timeout_s": 5}
    assert identity(config(BERT)) == identity(config(bigger))
    assert identity(config(BERT)) != identity(config({**BERT, "price_per_call": 1}))


def changed(expert, **model):
    return {**expert, "model": {**expert["model"], **model}}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (config, "at least 1 item"),
        (lambda: config(BERT, BERT), "experts must have different names, got a, a"),
        (lambda: config(BERT, labels=["x", "x"]), "two different names at least, got x, x"),
        (
            lambda: config(changed(BERT, label_names={"LABEL_0": "z"}), labels=["x", "y"]),
            "expert a: label_names: z is no label of the task; allowed: x, y",
        ),
        (lambda: config(changed(LLAMA, judge="exact")), "judge `exact` needs items.reference"),
        (
            lambda: config(changed(LLAMA, judge="exact"), items={"reference": "r"}),
            "b does not answer with labels",
        ),
        (lambda: config(changed(LLAMA, prompt="no slot")), "prompt: {text} is missing"),
        (lambda: config(changed(LLAMA, sampling={"self_debias": {}})), "self_debias: an answer has no other"),
        (
            lambda: config(changed(LLAMA, engine=REMOTE, pooling="last_token")),
            "pooling: a model behind a URL or run by vLLM shows no states",
        ),
        (
            lambda: config(changed(LLAMA, engine=REMOTE, sampling={"top_k": 5})),
            "sampling.top_k: a model behind a URL keeps all tokens (0) or the likeliest (1)",
        ),
        (
            lambda: config({**changed(LLAMA, engine=REMOTE), "num_gpus": 1}),
            "num_gpus: the model runs behind a URL",
        ),
        (
            lambda: config(changed(LLAMA, engine=FAST, pooling="last_token")),
            "pooling: a model behind a URL or run by vLLM shows no states",
        ),
        (
            lambda: config({**changed(LLAMA, engine={**FAST, "tensor_parallel": 2}), "num_gpus": 1}),
            "engine.tensor_parallel: 2 GPUs share the model, but num_gpus is 1",
        ),
        (lambda: config(BERT, prices={"z": 1}), "prices: no expert 'z'; there are a"),
        (lambda: config(BERT, {**LLAMA, "price_per_call": 1}), "a has no price, others have one"),
        (lambda: config(BERT, cost_column="usd"), "cost_column: belongs to recorded experts"),
    ],
)
def test_what_does_not_fit_together_is_refused(build, message):
    with pytest.raises(ValidationError) as error:
        build()
    assert message in str(error.value)


def test_generators_with_references_choose_an_expert():
    free = config(changed(LLAMA, judge="exact"), items={"reference": "r"}, answer="expert")
    assert not free.experts.pool[0].judges_labels
    priced = config(BERT, {**LLAMA, "price_per_call": 1}, prices={"a": 2})
    assert [expert.priced for expert in priced.experts.pool] == [False, True]
