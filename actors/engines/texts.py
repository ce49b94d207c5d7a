"""From prompts to token ids and back: what all engines that hold a tokenizer share.

A prompt goes through the tokenizer's chat template where wanted; what was written is decoded on its own,
without special tokens. Code that comes with a checkpoint is never run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from actors.engines.base import EngineError
from configs.load import locate
from configs.schema.plm import LocalEngine, Sampling

OPEN_QUOTE = '"'


class Texts:
    """The tokenizer of a model, and how its configuration wants prompts to be put."""

    def __init__(
        self, spec: LocalEngine, tokenizer: PreTrainedTokenizerBase, configs: Sequence[object]
    ) -> None:
        """Use a tokenizer; `configs` may name further end tokens. `EngineError` where it has no template."""
        self._spec, self.tokenizer = spec, tokenizer
        self.chat = self._wants_chat()
        self.end_tokens = _end_tokens(tokenizer, configs)
        self.ids("x")

    def _wants_chat(self) -> bool:
        has_template = bool(getattr(self.tokenizer, "chat_template", None))
        if self._spec.chat == "always" and not has_template:
            raise EngineError(f"{self._spec.model}: chat is `always`, but its tokenizer has no chat template")
        return has_template and self._spec.chat != "never"

    def ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt; in a chat, its open quote becomes the beginning of the reply."""
        if not self.chat:
            ids: list[int] = self.tokenizer(prompt)["input_ids"]
            return ids
        body = prompt.rstrip(" ")
        opened = body.endswith(OPEN_QUOTE)
        messages = [{"role": "system", "content": self._spec.system}] if self._spec.system else []
        messages.append(
            {"role": "user", "content": body.removesuffix(OPEN_QUOTE).rstrip() if opened else prompt}
        )
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        text += OPEN_QUOTE if opened else ""
        chat_ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return chat_ids

    def continuation(self, text: str) -> list[int]:
        """Token ids of a text that follows a prompt. `EngineError` where it has none."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise EngineError(f"{self._spec.model}: its tokenizer makes nothing of {text!r}")
        return ids

    def cut(self, text: str, most: int) -> str:
        """The beginning of a text, `most` tokens of it."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return text if len(ids) <= most else str(self.tokenizer.decode(ids[:most]))

    def without_end(self, tokens: Sequence[int]) -> list[int]:
        """Tokens written, without the one that ended the text."""
        return list(tokens[:-1] if tokens and tokens[-1] in self.end_tokens else tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """What was written."""
        text: str = self.tokenizer.decode(self.without_end(tokens), skip_special_tokens=True)
        return text


def problem(prompts: Sequence[Sequence[int]], sampling: Sampling, limit: int | None) -> str | None:
    """Why a model whose context has `limit` tokens cannot go on with prompts (token ids)."""
    longest = max(map(len, prompts))
    if not min(map(len, prompts)):
        return "the prompt is empty"
    if limit is None or longest + sampling.max_new_tokens <= limit:
        return None
    return (
        f"prompt of {longest} tokens and {sampling.max_new_tokens} new ones exceed "
        f"the model's context of {limit}"
    )


def source_of(model: str) -> str:
    """The folder of a model, or its hub id as it is; `EngineError` for a folder that is not there."""
    source = str(locate(model)) if locate(model).is_dir() else model
    if model.startswith(("/", ".", "~")) and not Path(source).is_dir():
        raise EngineError(f"{model}: no such folder")
    return source


def one_line(model: str, error: Exception) -> str:
    """What went wrong with a model, by the first line of a library's complaint."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{model}: {lines[0] if lines else type(error).__name__}"


def _end_tokens(tokenizer: Any, configs: Sequence[object]) -> frozenset[int]:  # noqa: ANN401
    tokens = {tokenizer.eos_token_id}
    for source in configs:
        ends = getattr(source, "eos_token_id", None)
        tokens |= set(ends) if isinstance(ends, list) else {ends}
    return frozenset(token for token in tokens if token is not None)
