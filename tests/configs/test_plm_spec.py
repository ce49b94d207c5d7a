"""The configuration of language models: defaults, refusals, and what identifies a run."""

import pickle

import pytest
from pydantic import ValidationError

from configs.schema.base import identity
from configs.schema.plm import (
    OpenaiEngine,
    PlmSpec,
    RecordedEngine,
    Sampling,
    SelfDebias,
    TransformersEngine,
    VllmEngine,
)

URL = "http://127.0.0.1:8000/v1"


def plm(**fields) -> PlmSpec:
    return PlmSpec.model_validate({"name": "a", "engine": {"kind": "recorded"}, **fields})


def test_defaults_are_those_of_the_method():
    assert plm().sampling == Sampling(
        temperature=1.0,
        top_p=0.9,
        top_k=0,
        min_new_tokens=0,
        max_new_tokens=100,
        stop=('"',),
        self_debias=None,
    )
    assert SelfDebias() == SelfDebias(decay=200, floor=0.01)
    assert (plm().replicas, plm().num_cpus, plm().num_gpus, plm().batch_size) == (1, 1.0, 0.0, 32)


def test_engines_are_told_apart_by_kind():
    assert isinstance(plm().engine, RecordedEngine)
    hub = plm(engine={"kind": "transformers", "model": "some/model"}).engine
    assert isinstance(hub, TransformersEngine)
    assert (hub.dtype, hub.device, hub.chat) == ("auto", "auto", "auto")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "../up"}, "name"),
        ({"name": "a b"}, "name"),
        ({"engine": {"kind": "oracle"}}, "'recorded', 'transformers'"),
        ({"engine": {"kind": "transformers"}}, "model"),
        ({"engine": {"kind": "transformers", "model": "m", "trust_remote_code": True}}, "trust_remote_code"),
        ({"engine": {"kind": "recorded", "mode": "some"}}, "mode"),
        ({"replicas": 0}, "replicas"),
        ({"num_gpus": -1}, "num_gpus"),
        ({"sampling": {"temperature": 0}}, "temperature"),
        ({"sampling": {"top_p": 0}}, "top_p"),
        ({"sampling": {"top_p": 1.1}}, "top_p"),
        ({"sampling": {"top_k": -1}}, "top_k"),
        ({"sampling": {"stop": [""]}}, "stop"),
        ({"sampling": {"min_new_tokens": 5, "max_new_tokens": 4}}, "the first must not exceed the second"),
        ({"sampling": {"self_debias": {"floor": 0}}}, "floor"),
        ({"price_per_million_tokens": {"prompt": 1}}, "completion"),
    ],
)
def test_wrong_values_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        plm(**fields)


def test_resources_do_not_identify_a_run_but_sampling_does():
    usual = identity(plm())
    resources = {"replicas": 3, "num_gpus": 1, "accelerator_type": "A100", "num_cpus": 2}
    assert identity(plm(**resources, start_timeout_s=9, request_timeout_s=9)) == usual
    assert identity(plm(sampling={"top_p": 0.8})) != usual
    assert identity(plm(engine={"kind": "recorded", "seed": 1})) != usual


def test_specs_travel_to_other_processes():
    for spec in (plm(sampling={"stop": ["\n", '"'], "self_debias": {}}), remote(extra={"a": [{"b": None}]})):
        assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301
        assert PlmSpec.model_validate(spec.model_dump(mode="json")) == spec


def remote(sampling=None, num_gpus=0, **engine) -> PlmSpec:
    engine = {"kind": "openai", "url": URL, "model": "m", **engine}
    return plm(engine=engine, sampling=sampling or {}, num_gpus=num_gpus)


def fast(sampling=None, num_gpus=0, **engine) -> PlmSpec:
    engine = {"kind": "vllm", "model": "some/model", **engine}
    return plm(engine=engine, sampling=sampling or {}, num_gpus=num_gpus)


def test_vllm_has_defaults_and_works_on_several_blocks_at_a_time():
    engine = fast().engine
    assert engine == VllmEngine(model="some/model")
    assert (engine.source, fast(revision="r").engine.source) == ("some/model", "some/model@r")
    assert (fast().blocks, fast(blocks=3).blocks, plm().blocks, remote().blocks) == (32, 3, 1, 1)
    assert fast().model_copy(update={"batch_size": 2000}).blocks == 1
    assert fast(tensor_parallel=4, num_gpus=4).num_gpus == 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tensor_parallel": 2}, "engine.tensor_parallel: 2 GPUs share the model, but num_gpus is 0"),
        ({"tensor_parallel": 2, "num_gpus": 1}, "num_gpus is 1"),
        ({"gpu_memory_utilization": 1.1}, "gpu_memory_utilization"),
        ({"kv_cache_gib": 0}, "kv_cache_gib"),
        ({"blocks": 0}, "blocks"),
        ({"device": "cpu"}, "device"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"extra": {"trust_remote_code": True}}, "extra: trust_remote_code is the engine's own"),
        ({"extra": {"load_format": "pt"}}, "extra: load_format is the engine's own"),
        ({"extra": {"speculative_config": {"trust_remote_code": True}}}, "code that comes with a checkpoint"),
        ({"sampling": {"self_debias": {}}}, "sampling.self_debias: vLLM knows none"),
        ({"sampling": {"temperature": 2.5}}, "sampling.temperature: 0.01 to 2 for vLLM, got 2.5"),
    ],
)
def test_what_vllm_cannot_do_is_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        fast(**fields)


def test_what_vllm_may_use_does_not_identify_a_run_but_what_it_runs_does():
    usual = identity(fast())
    more = {"tensor_parallel": 2, "gpu_memory_utilization": 0.5, "kv_cache_gib": 4, "blocks": 2}
    assert identity(fast(num_gpus=2, **more)) == usual
    for other in ({"quantization": "fp8"}, {"max_model_len": 9}, {"dtype": "float16"}, {"extra": {"a": 1}}):
        assert identity(fast(**other)) != usual


def test_a_url_has_defaults_and_one_spelling():
    engine = remote(url=f"{URL}/").engine
    assert engine == OpenaiEngine(url=URL, model="m")
    assert (engine.api, engine.key_env, engine.system, engine.extra) == ("chat", None, None, {})
    assert (engine.concurrency, engine.timeout_s, engine.retries) == (16, 60, 5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "127.0.0.1:8000/v1"}, "an address such as http"),
        ({"url": "http:///v1"}, "an address such as http"),
        ({"url": "http://a b/v1"}, "an address such as http"),
        ({"url": "https://me:secret@x/v1"}, "neither a password nor a query may be in it"),
        ({"url": f"{URL}?key=secret"}, "neither a password nor a query may be in it"),
        ({"url": f"{URL}/chat/completions"}, "the base of the addresses is needed"),
        ({"key_env": "sk-secret"}, "the name of an environment variable in capitals is needed"),
        ({"key_env": "gsk_secret"}, "the name of an environment variable in capitals is needed"),
        ({"model": ""}, "model"),
        ({"api": "responses"}, "'chat' or 'completions'"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"retries": -1}, "retries"),
        ({"extra": {"n": 2}}, "extra: n is the engine's own"),
        ({"extra": {"messages": []}}, "extra: messages is the engine's own"),
        ({"system": "Be brief.", "api": "completions"}, "system: belongs to api: chat"),
        ({"num_gpus": 1}, "num_gpus: the model runs behind a URL"),
        ({"sampling": {"top_k": 2}}, "sampling.top_k: a model behind a URL keeps all tokens"),
        ({"sampling": {"min_new_tokens": 1}}, "sampling.min_new_tokens: a model behind a URL knows none"),
        ({"sampling": {"self_debias": {}}}, "sampling.self_debias: a model behind a URL"),
    ],
)
def test_what_a_url_cannot_do_is_refused(fields, said):
    with pytest.raises(ValidationError, match=said) as caught:
        remote(**fields)
    assert all("secret" not in error["msg"] for error in caught.value.errors())


def test_how_a_url_is_asked_does_not_identify_a_run_but_what_is_asked_does():
    usual = identity(remote())
    assert identity(remote(key_env="KEY", concurrency=2, timeout_s=3, retries=0)) == usual
    for other in ({"url": f"{URL}/x"}, {"model": "n"}, {"api": "completions"}, {"extra": {"a": 1}}):
        assert identity(remote(**other)) != usual
