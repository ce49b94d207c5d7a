import pytest
from pydantic import TypeAdapter, ValidationError

from configs.schema.stm import FullStm, HeadStm, LinearStm, StmSpec

read = TypeAdapter(StmSpec).validate_python


def test_kind_chooses_the_model():
    assert isinstance(read({"kind": "linear"}), LinearStm)
    assert isinstance(read({"kind": "full", "epochs": 1}), FullStm)
    assert isinstance(read({"kind": "head", "layer": 3}), HeadStm)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"kind": "forest"},
        {"kind": "linear", "epochs": 3},
        {"kind": "linear", "ngrams": [2, 1]},
        {"kind": "linear", "c": 0},
        {"kind": "full", "epochs": 0},
        {"kind": "full", "dtype": "float16"},
        {"kind": "head", "pooling": "max"},
    ],
)
def test_refuses(wrong):
    with pytest.raises(ValidationError):
        read(wrong)


@pytest.mark.parametrize("kind", ["linear", "full", "head"])
def test_survives_json_and_tells_its_needs(kind):
    spec = read({"kind": kind})
    assert read(spec.model_dump(mode="json")) == spec
    assert (spec.num_cpus, spec.num_gpus, spec.accelerator_type) == (1.0, 0.0, None)


@pytest.mark.parametrize("model", [LinearStm, FullStm, HeadStm])
def test_every_field_is_documented(model):
    assert [name for name, field in model.model_fields.items() if not field.description] == ["kind"]
