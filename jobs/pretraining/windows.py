"""Training windows: a task's prompt, zero-shot or with shots, and a text of the label that it asks for.

A model trained on `prompt + text + quote + end` continues a prompt like any larger one and stops. In feedback
windows the shots mostly resemble the text (nearest by TF-IDF, both labels alike), so that the model learns to
take up what its shots speak of; a text nearly equal to the target is never its shot, so that the model does
not learn to copy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer

from configs.schema.base import ConfigError
from configs.schema.pretrain import Windows
from configs.schema.task import Task
from fusion.generation.prompts import zero_shot
from jobs.pretraining.corpus import Row

BLOCK = 256
NEAREST = 12
TOO_NEAR = 0.8

PAD, END = "<pad>", "</s>"
PAD_ID, END_ID = 0, 1
"""The special tokens, first in the vocabulary."""


@dataclass(frozen=True)
class Window:
    """Token ids, and for each whether it is learned: the text, quote and end; own shots if asked to."""

    ids: list[int]
    learned: list[bool]


class WindowSource:
    """Draws windows from the texts of one author and, for shots, of others; endless and seeded."""

    def __init__(
        self,
        rows: Sequence[Row],
        company: Sequence[Row],
        task: Task,
        form: Windows,
        tokenizer: Tokenizer,
        positions: int,
        seed: int,
    ) -> None:
        """`rows` are learned; shots come from `rows` and `company`; too long windows lose shots,
        and a text that is too long alone is left out."""
        self._rows, self._texts = rows, [text for text, _ in (*rows, *company)]
        self._labels = {label.name: label for label in task.labels}
        self._label = np.array([list(self._labels).index(label) for _, label in (*rows, *company)])
        self._task, self._form, self._tokenizer, self._positions = task, form, tokenizer, positions
        self._random = np.random.default_rng(seed)
        self._vectors = TfidfVectorizer(
            sublinear_tf=True, min_df=2, max_df=0.2, dtype=np.float32
        ).fit_transform(self._texts)

    def __iter__(self) -> Iterator[Window]:
        fits = True
        while fits:
            fits = False
            order = self._random.permutation(len(self._rows))
            for start in range(0, len(order), BLOCK):
                for window in self._block(order[start : start + BLOCK]):
                    fits = True
                    yield window
        raise ConfigError(
            f"corpus: no text fits into {self._positions} tokens with its prompt; raise shape.positions"
        )

    def _block(self, targets: np.ndarray) -> Iterator[Window]:
        own = len(self._rows)
        pools = [pool for pool in np.split(np.arange(len(self._texts)), [own]) if len(pool)]
        near = [(self._vectors[targets] @ self._vectors[pool].T).toarray() for pool in pools]
        for place, target in enumerate(targets):
            if self._random.random() >= self._form.feedback:
                window = self._zero_shot(target)
            else:
                scores = [rows[place] for rows in near]
                window = self._feedback(target, self._shots(target, pools, scores))
            if len(window.ids) <= self._positions:
                yield window

    def _shots(self, target: int, pools: list[np.ndarray], scores: list[np.ndarray]) -> list[int]:
        """Indices of one to `shots` texts, small numbers more often, both labels alike."""
        most, similar = self._form.shots, self._random.random() < self._form.similar
        count = int(self._random.integers(1, most + 1)) if self._random.random() < 0.5 else 1 + most // 4
        allowed = [
            [self._allowed(pool, score, code, similar) for code in range(len(self._labels))]
            for pool, score in zip(pools, scores, strict=True)
        ]
        taken = [target]
        for _ in range(count):
            by_label = allowed[int(len(pools) > 1 and self._random.random() < self._form.foreign)]
            places = by_label[self._random.integers(len(by_label))]
            free = places[~np.isin(places, taken)]
            if len(free):
                taken.append(int(self._random.choice(free)))
        return taken[1:]

    def _allowed(self, pool: np.ndarray, score: np.ndarray, label: int, similar: bool) -> np.ndarray:
        """The texts of a label in a pool that may be shots: the nearest ones, or all."""
        places = np.flatnonzero((score < TOO_NEAR) & (self._label[pool] == label))
        if similar and len(places) > NEAREST:
            places = np.sort(places[np.argpartition(-score[places], NEAREST)[:NEAREST]])
        return pool[places]

    def _zero_shot(self, target: int) -> Window:
        return self._joined([(zero_shot(self._labels[self._rows[target][1]].zero_shot), False)], target)

    def _feedback(self, target: int, shots: list[int]) -> Window:
        """A prompt as `fusion.generation.prompts.feedback` writes it; shots go while it is too long."""
        asked = self._labels[self._rows[target][1]].feedback
        prefix, lines = self._task.shot_prefix, "\n" * self._task.blank_lines
        pieces: list[tuple[str, bool]] = []
        learned = len(self._rows) if self._form.learn_shots else 0
        for shot in shots:
            pieces += [(prefix, False), (self._texts[shot] + "\n", shot < learned)]
        window = self._joined([*pieces, ((lines if shots else "") + asked, False)], target)
        return self._feedback(target, shots[:-1]) if shots and len(window.ids) > self._positions else window

    def _joined(self, prompt: list[tuple[str, bool]], target: int) -> Window:
        """Tokenised as one string, as prompts will be; a token is learned if its last character is."""
        pieces = [*prompt, (self._rows[target][0] + '"', True)]
        flags = np.repeat([flag for _, flag in pieces], [len(piece) for piece, _ in pieces])
        encoded = self._tokenizer.encode("".join(piece for piece, _ in pieces), add_special_tokens=False)
        return Window([*encoded.ids, END_ID], [*(bool(flags[end - 1]) for _, end in encoded.offsets), True])


def batches(windows: Iterator[Window], tokens: int, random: np.random.Generator) -> Iterator[list[Window]]:
    """Batches of windows of like length, at most `tokens` with padding, from blocks sorted by length."""
    while True:
        block = sorted((next(windows) for _ in range(BLOCK)), key=lambda window: len(window.ids))
        groups: list[list[Window]] = [[]]
        for window in block:
            if groups[-1] and len(window.ids) * (len(groups[-1]) + 1) > tokens:
                groups.append([])
            groups[-1].append(window)
        for place in random.permutation(len(groups)):
            yield groups[place]
