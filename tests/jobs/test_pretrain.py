"""The pretrain job: voices, windows, training, errors, and the miniatures that ship."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from configs.load import PACKAGE_ROOT, load
from configs.schema.base import ConfigError
from configs.schema.pretrain import Check, Corpus, PretrainConfig, Windows
from configs.schema.task import Task
from fusion.generation.prompts import feedback
from jobs.pretrain import pretrain, run
from jobs.pretraining.corpus import read
from jobs.pretraining.grammar import load_grammar, write
from jobs.pretraining.quality import judge, measure
from jobs.pretraining.training import train_tokenizer
from jobs.pretraining.windows import Window, WindowSource, batches

EMBEDDED = PACKAGE_ROOT / "configs" / "embedded"
VOICES = ["critic", "fan", "lister", "novelist"]
LABELS = ("positive", "negative")
TASK = Task.model_validate(
    {
        "name": "movies",
        "shot_prefix": "The movie review is: ",
        "labels": [
            {"name": name, "zero_shot": f'A {name} review is: "', "feedback": f'A new {name} review is: "'}
            for name in LABELS
        ],
    }
)
TINY = {
    "name": "tiny",
    "task": TASK.model_dump(),
    "corpus": {"voice": "configs/embedded/voices/fan.yaml", "count": 300},
    "company": [{"voice": "configs/embedded/voices/lister.yaml", "count": 100}],
    "shape": {"vocabulary": 400, "hidden": 16, "intermediate": 32, "layers": 1, "heads": 2, "positions": 512},
    "training": {"steps": 20, "batch_tokens": 256, "lr": 1e-2, "warmup": 2},
    "check": {"samples": 4, "max_new_tokens": 8},
}


def _tiny(output: Path, **changes: object) -> PretrainConfig:
    return PretrainConfig.model_validate({**TINY, "output": str(output), **changes})


def _grammar(folder: Path, text: str) -> Path:
    file = folder / "voice.yaml"
    file.write_text(text)
    return file


@pytest.fixture(scope="module")
def fan() -> list[tuple[str, str]]:
    return write(load_grammar(EMBEDDED / "voices" / "fan.yaml"), 400, seed=3)


@pytest.fixture(scope="module")
def tokenizer(fan: list[tuple[str, str]]) -> Tokenizer:
    return train_tokenizer([text for text, _ in fan], 600)


# Voices


@pytest.mark.parametrize("voice", VOICES)
def test_a_voice_writes_the_same_different_readable_texts(voice: str):
    grammar = load_grammar(EMBEDDED / "voices" / f"{voice}.yaml")
    rows = write(grammar, 1500, seed=1)
    assert rows == write(grammar, 1500, seed=1)
    assert rows != write(grammar, 1500, seed=2)
    assert len({text for text, _ in rows}) == 1500
    assert [label for _, label in rows[:4]] == ["positive", "negative"] * 2
    for text, _ in rows:
        assert grammar.words[0] <= len(text.split()) <= grammar.words[1]
        assert text[0].isupper() or not text[0].isalpha()
        assert not set('{}|"') & set(text)
    assert len({word for text, _ in rows for word in text.lower().split()}) > 700


def test_voices_share_little_of_their_wording():
    texts = {v: write(load_grammar(EMBEDDED / "voices" / f"{v}.yaml"), 800, seed=1) for v in VOICES}
    trigrams = {
        voice: {tuple(text.split()[i : i + 3]) for text, _ in rows for i in range(len(text.split()) - 2)}
        for voice, rows in texts.items()
    }
    for one in VOICES:
        for other in VOICES:
            if one < other:
                shared = len(trigrams[one] & trigrams[other]) / min(len(trigrams[one]), len(trigrams[other]))
                assert shared < 0.1, (one, other)


def test_marks_of_the_grammar(tmp_path: Path):
    file = _grammar(
        tmp_path,
        """
words: [1, 20]
rules:
  text: ["{mood}, not {mood!}; a {thing=} is a {thing=}. it {is|was} {thing=}."]
  mood: {good: [glad], bad: [sad]}
  thing: [apple, egg]
""",
    )
    texts = dict(write(load_grammar(file), 8, seed=0))
    assert {(text.split()[0], label) for text, label in texts.items()} == {("Glad,", "good"), ("Sad,", "bad")}
    for text, label in texts.items():
        assert ("not sad" in text) == (label == "good")
        thing = "apple" if "apple" in text else "egg"
        assert text.count(thing) == 3
        assert f"an {thing} is an {thing}. It" in text


def test_weights_and_label_noise(tmp_path: Path):
    lines = "\n".join(f"    word{i}" for i in range(60))
    moods = "  mood: {good: ['9 * fine', ok], bad: [poor]}\n"
    rules = f"  text: ['{{mood}} {{n}} {{n}}']\n  n: |\n{lines}\n{moods}"
    grammar = load_grammar(_grammar(tmp_path, "noise: 0.1\nwords: [1, 9]\nrules:\n" + rules))
    good = [text for text, label in write(grammar, 2000, seed=0) if label == "good"]
    assert 0.05 < np.mean([text.startswith("Poor") for text in good]) < 0.15
    clean = [text for text, label in write(replace(grammar, noise=0.0), 2000, seed=0) if label == "good"]
    assert not any(text.startswith("Poor") for text in clean)
    assert 0.85 < np.mean([text.startswith("Fine") for text in clean]) < 0.95


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rules: {start: [a]}", "rule text"),
        ("rules: {text: ['{other}'], mood: {good: [a], bad: [b]}}", "no rule 'other'"),
        ("rules: {text: [1, 2]}", "must be lines of text"),
        ("words: [1, 3]\nrules: {text: ['{mood}'], mood: {good: [a], bad: [b]}}", "only 2 different"),
    ],
)
def test_a_wrong_grammar_is_one_line(tmp_path: Path, text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        write(load_grammar(_grammar(tmp_path, text)), 10, seed=0)


# Files of texts


def test_files_are_read_alike_and_cleaned(tmp_path: Path):
    rows = [
        {"text": 'He said "no".\nI left.', "label_name": "negative"},
        {"text": "Fine.", "label_name": "positive"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, rows[1]])
    (tmp_path / "a.jsonl").write_text(lines)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(lines)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    expected = [("He said 'no'. I left.", "negative"), ("Fine.", "positive")]
    for path in [tmp_path, *tmp_path.iterdir()]:
        assert read(Corpus(path=str(path)), LABELS) == expected
    only = Corpus(path=str(tmp_path / "a.jsonl"), where={"label_name": "positive"})
    assert read(only, LABELS) == expected[1:]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ('{"text": "a", "label": "positive"}\n', "no column 'label_name'"),
        ('{"text": "a", "label_name": "mixed"}\n', "no prompt for the label 'mixed'"),
        ("{not json}\n", "not readable"),
        ("[1, 2]\n", "not readable"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, content: str, words: str):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=words) as error:
        read(Corpus(path=str(tmp_path)), LABELS)
    assert "\n" not in str(error.value)


def test_a_missing_or_strange_file_is_one_line(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        read(Corpus(path=str(tmp_path / "none")), LABELS)
    (tmp_path / "bad.parquet").write_bytes(b"PAR?")
    with pytest.raises(ConfigError, match="not readable"):
        read(Corpus(path=str(tmp_path / "bad.parquet")), LABELS)
    (tmp_path / "texts").mkdir()
    with pytest.raises(ConfigError, match="no file ends in"):
        read(Corpus(path=str(tmp_path / "texts")), LABELS)


# Windows


def _windows(
    rows: list[tuple[str, str]], tokenizer: Tokenizer, form: Windows, count: int, **more: object
) -> list[tuple[str, str, Window]]:
    """Windows decoded: everything, what is learned, and the window."""
    company = more.get("company", [])
    source = iter(
        WindowSource(rows, company, TASK, form, tokenizer, int(more.get("positions", 2048)), seed=0)
    )
    drawn = [next(source) for _ in range(count)]
    return [
        (
            tokenizer.decode(window.ids, skip_special_tokens=False),
            tokenizer.decode([i for i, flag in zip(window.ids, window.learned, strict=True) if flag]),
            window,
        )
        for window in drawn
    ]


def test_zero_shot_windows_are_prompt_text_quote_end(fan, tokenizer):
    wanted = {f'A {label} review is: "{text}"</s>': text for text, label in fan}
    drawn = _windows(fan, tokenizer, Windows(feedback=0), 400)
    assert {whole for whole, _, _ in drawn} == set(wanted)
    assert all(learned == wanted[whole] + '"' for whole, learned, _ in drawn)


def test_feedback_windows_are_the_prompt_of_the_task(fan, tokenizer):
    texts = dict(fan)
    counts = set()
    for whole, learned, _ in _windows(fan, tokenizer, Windows(feedback=1), 200):
        prompt, _, rest = whole.rpartition('review is: "')
        target = rest.removesuffix('"</s>')
        shots = [line.removeprefix(TASK.shot_prefix) for line in prompt.split("\n\n")[0].splitlines()]
        (label,) = [label for label in TASK.labels if label.name == texts[target]]
        assert whole == feedback(shots, TASK.shot_prefix, label.feedback) + target + '"</s>'
        assert set(shots) <= set(texts)
        assert target not in shots
        assert len(set(shots)) == len(shots)
        assert "The movie review is:" not in learned
        assert learned.endswith(target + '"')
        assert all(shot in learned for shot in shots)
        counts.add(len(shots))
    assert {1, 3, 8} <= counts <= set(range(1, 9))


def test_company_appears_among_the_shots_and_is_not_learned(fan, tokenizer):
    company = [("Zebra zebra zebra zebra.", "positive"), ("Quagga quagga quagga.", "negative")]
    drawn = _windows(fan, tokenizer, Windows(feedback=1, foreign=0.9, similar=0), 60, company=company)
    assert any("Zebra" in whole for whole, _, _ in drawn)
    assert not any("Zebra" in learned or "Quagga" in learned for _, learned, _ in drawn)


def test_shots_need_not_be_learned(fan, tokenizer):
    for whole, learned, _ in _windows(fan, tokenizer, Windows(feedback=1, learn_shots=False), 50):
        assert whole.endswith(f'review is: "{learned}</s>')


def test_shots_resemble_the_text_when_asked_to(fan, tokenizer):
    def overlap(similar: float) -> float:
        shares = []
        for whole, _, _ in _windows(fan, tokenizer, Windows(feedback=1, similar=similar), 200):
            prompt, _, target = whole.rpartition('review is: "')
            shares.append(len(set(target.split()) & set(prompt.split())) / len(set(target.split())))
        return float(np.mean(shares))

    assert overlap(1) > overlap(0) + 0.05


def test_a_long_window_loses_shots_not_its_text(fan, tokenizer):
    for whole, _, window in _windows(fan, tokenizer, Windows(feedback=1), 100, positions=120):
        assert len(window.ids) <= 120
        assert whole.endswith('"</s>')


def test_batches_hold_every_window_once_within_their_size(fan, tokenizer):
    source = WindowSource(fan, [], TASK, Windows(), tokenizer, 512, seed=0)
    stream = batches(iter(source), 600, np.random.default_rng(0))
    drawn: list[Window] = []
    while len(drawn) < 256:
        batch = next(stream)
        assert len(batch) * max(len(window.ids) for window in batch) <= 600 or len(batch) == 1
        drawn += batch
    expected = iter(WindowSource(fan, [], TASK, Windows(), tokenizer, 512, seed=0))
    assert sorted(w.ids for w in drawn) == sorted(next(expected).ids for _ in range(256))


# The job


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(_tiny(tmp_path_factory.mktemp("pretrain") / "tiny"))


def test_the_job_saves_what_transformers_loads(tiny: Path):
    names = {file.name for file in tiny.iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "generation_config.json",
        "README.md",
    }
    assert [file.name for file in tiny.parent.iterdir()] == ["tiny"]
    model = AutoModelForCausalLM.from_pretrained(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert model.dtype == torch.bfloat16
    assert tokenizer.convert_tokens_to_ids("</s>") == model.generation_config.eos_token_id
    assert "miniature" in (tiny / "README.md").read_text()
    assert _written(model, tokenizer, TASK.labels[0].zero_shot, 1)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tiny: Path, tmp_path: Path):
    again = pretrain(_tiny(tmp_path / "tiny"))
    for file in tiny.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name
    other = pretrain(_tiny(tmp_path / "other", seed=1, check={"samples": 0}))
    assert (other / "model.safetensors").read_bytes() != (tiny / "model.safetensors").read_bytes()


def test_training_lowers_the_loss_and_goes_on_from_a_model(tiny: Path, tmp_path: Path):
    lines: list[str] = []
    config = _tiny(tmp_path / "more", start=str(tiny), check={"samples": 0})
    folder = pretrain(config, lines.append)
    assert (folder / "tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()
    first = float((tiny / "README.md").read_text().partition("last tenth of the training | ")[2].split()[0])
    then = float((folder / "README.md").read_text().partition("last tenth of the training | ")[2].split()[0])
    assert then < first - 0.1
    assert any(line.startswith("step 20/20") for line in lines)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": "nowhere"}, "start"),
        ({"corpus": {"path": "nowhere.jsonl"}}, "no such file"),
        ({"output": "."}, "exists already"),
    ],
)
def test_errors_leave_nothing_behind(tmp_path: Path, changes: dict[str, object], words: str):
    with pytest.raises(ConfigError, match=words):
        pretrain(PretrainConfig.model_validate({**TINY, "output": str(tmp_path / "out"), **changes}))
    assert not list(tmp_path.iterdir())


def test_the_job_runs_from_a_file_with_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps({**TINY, "output": str(tmp_path / "out")}))
    assert run(str(file), ["training.steps=2", "check.samples=0"]) == 0
    assert "tiny: step 2/2" in capsys.readouterr().out
    assert (tmp_path / "out" / "config.json").is_file()


# The miniatures that ship


def _written(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, prompt: str, count: int
) -> list[str]:
    torch.manual_seed(0)
    inputs = tokenizer([prompt] * count, return_tensors="pt", padding=True)
    output = model.generate(**inputs, do_sample=True, temperature=1.0, top_p=0.9, top_k=0, max_new_tokens=90)
    return tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("name", VOICES)
def test_a_miniature_writes_texts_that_end(name: str):
    config = load(f"configs/pretrain/{name}.yaml", PretrainConfig)
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED / name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / name)
    assert model.config.max_position_embeddings >= 768
    for label in config.task.labels:
        texts = _written(model, tokenizer, label.zero_shot, 12)
        assert sum(text.endswith('"') for text in texts) >= 10
        assert len(set(texts)) >= 10
        assert sum(len(text.split()) >= 10 for text in texts) >= 9


@pytest.mark.parametrize("name", VOICES)
def test_a_miniature_follows_its_label_and_its_shots(name: str):
    config = load(f"configs/pretrain/{name}.yaml", PretrainConfig)
    voice = Corpus(voice=f"configs/embedded/voices/{name}.yaml", count=2000, seed=9, alike=16)
    rows = read(voice, LABELS, clean=True)
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED / name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / name)
    check = Check(samples=48, max_new_tokens=60)
    seen = measure(model, tokenizer, config.task, rows, judge(rows), check, seed=0, with_shots=True)
    assert seen.agrees > 0.7
    assert seen.follows > seen.by_chance + 0.05
    assert seen.copied < 0.1


def test_the_miniatures_are_small_and_complete():
    folders = [EMBEDDED / name for name in VOICES]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) <= 32e6
    for folder in folders:
        names = {file.name for file in folder.iterdir()}
        assert names == {
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "README.md",
            "tokenizer.json",
            "tokenizer_config.json",
        }
        assert "apache-2.0" in (folder / "README.md").read_text()
