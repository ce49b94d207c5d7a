"""The configuration of language models: defaults, refusals, and what identifies a run."""

import pickle

import pytest
from pydantic import ValidationError

from configs.schema.base import identity
from configs.schema.plm import PlmSpec, RecordedEngine, Sampling, SelfDebias, TransformersEngine


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
    spec = plm(sampling={"stop": ["\n", '"'], "self_debias": {}})
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301
