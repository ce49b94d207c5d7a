"""`jobs pretrain`: a tiny Llama that writes like one author on a task's prompts, from labelled texts.

Texts (`pretraining/corpus.py`, `grammar.py`) become training windows in the form of the task's prompts
(`windows.py`); a tokenizer and a model are trained on them from nothing (`training.py`); the model is sampled
and judged (`quality.py`) and saved by Hugging Face conventions, with a card that says what it is. The folder
appears complete or not at all.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from configs.load import load, locate
from configs.schema.base import ConfigError
from configs.schema.pretrain import PretrainConfig
from fusion.generation.prompts import feedback
from jobs.pretraining.card import card
from jobs.pretraining.corpus import Row, read
from jobs.pretraining.grammar import load_grammar
from jobs.pretraining.quality import Figures, judge, measure
from jobs.pretraining.training import Trained, load_model, new_model, train, train_tokenizer
from jobs.pretraining.windows import END, END_ID, PAD, PAD_ID, WindowSource


def run(path: str, overrides: Sequence[str] = ()) -> int:
    """Run the job of a configuration file with `key=value` overrides; prints its progress, returns 0."""
    config = load(path, PretrainConfig, list(overrides))
    pretrain(config, lambda line: print(f"{config.name}: {line}", flush=True))
    return 0


def pretrain(config: PretrainConfig, say: Callable[[str], None] = lambda _: None) -> Path:
    """Train, measure and save the model of a configuration; returns its folder.

    ConfigError when the folder exists, or a corpus is empty, unreadable or has a label without a prompt.
    The same configuration and number of threads give the same bytes on one machine.
    """
    folder = Path(config.output)
    if folder.exists():
        raise ConfigError(f"{folder}: output: exists already; name another folder or move this one away")
    torch.set_num_threads(config.threads)
    logging.disable_progress_bar()
    labels = config.task.label_names
    rows = [row for corpus in config.corpus for row in read(corpus, labels)]
    company = [row for corpus in config.company for row in read(corpus, labels)]
    say(f"{len(rows)} texts of its own, {len(company)} of company")
    model, tokenizer = _beginning(config, rows, company)
    positions = model.config.max_position_embeddings
    windows = WindowSource(rows, company, config.task, config.windows, tokenizer, positions, config.seed)
    trained = train(model, config.training, windows, config.seed, say)
    trained.model.to(torch.bfloat16)
    return _publish(config, folder, trained, _wrapped(tokenizer, positions), len(rows), say)


def _beginning(
    config: PretrainConfig, rows: list[Row], company: list[Row]
) -> tuple[LlamaForCausalLM, Tokenizer]:
    """The model and tokenizer that training starts with."""
    if config.start is not None:
        folder = locate(config.start)
        return load_model(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = train_tokenizer(_sample(config, rows, company), config.shape.vocabulary)
    torch.manual_seed(config.seed)
    return new_model(config.shape, tokenizer.get_vocab_size()), tokenizer


def _sample(config: PretrainConfig, rows: list[Row], company: list[Row]) -> list[str]:
    """What the tokenizer learns from: the texts, and the prompts as often as a hundredth of them."""
    prompts = [
        form
        for label in config.task.labels
        for form in (label.zero_shot, feedback(["It is."], config.task.shot_prefix, label.feedback))
    ]
    return [text for text, _ in (*rows, *company)] + prompts * (1 + len(rows) // 100)


def _wrapped(tokenizer: Tokenizer, positions: int) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )


def _publish(
    config: PretrainConfig,
    folder: Path,
    trained: Trained,
    tokenizer: PreTrainedTokenizerFast,
    texts: int,
    say: Callable[[str], None],
) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pretrain-") as name:
        draft = Path(name) / folder.name
        trained.model.generation_config = GenerationConfig(
            do_sample=True,
            temperature=config.check.temperature,
            top_p=config.check.top_p,
            top_k=0,
            max_new_tokens=config.check.max_new_tokens,
            eos_token_id=END_ID,
            pad_token_id=PAD_ID,
        )
        trained.model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        figures = _measured(config, trained, tokenizer, say)
        text = card(config, _about(config), texts, trained, figures)
        (draft / "README.md").write_text(text, encoding="utf-8")
        shutil.move(draft, folder)
    say(f"saved {folder}")
    return folder


def _about(config: PretrainConfig) -> str:
    return "\n\n".join(load_grammar(locate(c.voice)).about for c in config.corpus if c.voice)


def _measured(
    config: PretrainConfig, trained: Trained, tokenizer: PreTrainedTokenizerFast, say: Callable[[str], None]
) -> dict[str, Figures]:
    if not config.check.samples:
        return {}
    labels = config.task.label_names
    rows = [row for corpus in (*config.corpus, *config.company) for row in read(corpus, labels, clean=True)]
    judged_by = judge(rows)
    model = trained.model.float()
    figures = {
        name: measure(model, tokenizer, config.task, rows, judged_by, config.check, config.seed, with_shots)
        for name, with_shots in (("zero-shot", False), ("eight shots", True))
    }
    for name, seen in figures.items():
        say(f"{name}: {seen.closed:.1%} closed, {seen.agrees:.1%} with their label, {seen.copied:.1%} copied")
    return figures
