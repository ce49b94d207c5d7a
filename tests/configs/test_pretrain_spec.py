"""The configuration of the pretrain job, and the files of it that ship."""

from pathlib import Path

import pytest

from configs.load import PACKAGE_ROOT, load, locate
from configs.schema.base import ConfigError
from configs.schema.pretrain import PretrainConfig

SHIPPED = sorted((PACKAGE_ROOT / "configs" / "pretrain").glob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_what_ships_loads_and_names_voices_that_exist(file: Path):
    config = load(str(file), PretrainConfig)
    assert config.name == file.stem
    for corpus in (*config.corpus, *config.company):
        assert locate(str(corpus.voice)).is_file()


def test_each_shipped_author_has_the_others_for_company():
    authors = {"critic", "fan", "lister", "novelist"}
    assert authors <= {file.stem for file in SHIPPED}
    for file in (file for file in SHIPPED if file.stem in authors):
        config = load(str(file), PretrainConfig)
        voices = {Path(str(corpus.voice)).stem for corpus in (*config.corpus, *config.company)}
        assert voices == authors


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("corpus.path=texts.jsonl", "either voice"),
        ("shape.heads=3", "heads"),
        ("training.step=3", "unknown key"),
        ("training.precision=float16", "training.precision"),
        ("corpus.count=0", "corpus.0.count"),
    ],
)
def test_a_wrong_value_is_one_line_with_its_key(override: str, words: str):
    with pytest.raises(ConfigError) as error:
        load("configs/pretrain/critic.yaml", PretrainConfig, [override])
    assert words in str(error.value)
    assert "\n" not in str(error.value)
