"""An index of texts that finds a near-duplicate of a new one, exactly and fast.

Put the elements of all sets in one common order. If two sets a and b have Jaccard similarity >= t, they
share at least o = ceil(t (|a| + |b|) / (1 + t)) elements, and their first common one, at positions i and j,
has at least o - 1 common ones behind it: i <= |a| - o and j <= |b| - o (prefix and positional filtering;
Chaudhuri et al. 2006, Xiao et al. 2008). So only the first |b| - ceil(t |b|) + 1 elements of a set are
indexed, under the key (element, |b|), and a new set asks for its own first elements with the few sizes that
can still match. What passes is compared by bit maps, whose differing bits are at most as many as the
differing elements, and what passes that on the whole sets: nothing at or above the threshold is missed,
nothing below it is reported. The order puts frequent elements last; it is learned anew whenever the index has
quadrupled.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from math import ceil

ROUNDING = 1e-9
SIZES = 1 << 16
END = 0
BITS = 256
LEARN_AT, LEARN_EVERY = 500, 4
FREQUENT = 4


class Neighbours:
    """Sets of non-negative integers under a Jaccard threshold in (0, 1]; set i is the i-th one added.

    Sets have at most 65535 elements. Postings are linked lists inside two arrays, about 1.3 kB per text of 40
    words in all.
    """

    def __init__(self, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"near-duplicate threshold must be in (0, 1], is {threshold}")
        self.threshold = threshold
        self._sets: list[array[int]] = []
        self._maps: list[int] = []
        self._ranks: dict[int, int] = {}
        self._learn_at = LEARN_AT
        self._forget()

    def __len__(self) -> int:
        return len(self._sets)

    def add(self, elements: set[int]) -> None:
        """Index one set; an empty one is numbered but never found."""
        self._sets.append(array("Q", sorted(elements)))
        self._maps.append(_bit_map(elements))
        self._index(len(self._sets) - 1)
        if len(self._sets) == self._learn_at:
            self._learn_at *= LEARN_EVERY
            self._learn()

    def find(self, elements: set[int]) -> int | None:
        """The number of the first set added whose Jaccard similarity to `elements` reaches the threshold."""
        for number in sorted(set(self._proposed(elements))):
            other = self._sets[number]
            if len(elements.intersection(other)) >= self._needed(len(elements), len(other)):
                return number
        return None

    def _forget(self) -> None:
        self._heads: dict[int, int] = {}
        self._entries = array("Q", [0])
        self._next = array("Q", [END])

    def _index(self, number: int) -> None:
        elements = self._sets[number]
        size = len(elements)
        for position, element in enumerate(self._ordered(elements)[: size - self._smallest(size) + 1]):
            key = element * SIZES + size
            self._next.append(self._heads.get(key, END))
            self._heads[key] = len(self._entries)
            self._entries.append(number * SIZES + position)

    def _learn(self) -> None:
        """Index all sets again, in the order of how frequent elements are by now."""
        counts = Counter(chain.from_iterable(self._sets))
        self._ranks = {element: count for element, count in counts.items() if count >= FREQUENT}
        self._forget()
        for number in range(len(self._sets)):
            self._index(number)

    def _ordered(self, elements: Iterable[int]) -> list[int]:
        ranks = self._ranks
        return [element for _, element in sorted((ranks.get(element, 0), element) for element in elements)]

    def _smallest(self, size: int) -> int:
        """The size of the smallest set that can match, and how many elements must be shared with that."""
        return max(1, ceil(self.threshold * size - ROUNDING))

    def _needed(self, size: int, other: int) -> int:
        """How many elements two sets of these sizes must share; at least one."""
        return max(1, ceil(self.threshold * (size + other) / (1 + self.threshold) - ROUNDING))

    def _proposed(self, elements: set[int]) -> Iterator[int]:
        size, ordered, bits = len(elements), self._ordered(elements), _bit_map(elements)
        heads, entries, following, maps = self._heads, self._entries, self._next, self._maps
        for other in range(self._smallest(size), int(size / self.threshold + ROUNDING) + 1):
            needed = self._needed(size, other)
            last, differing = other - needed, size + other - 2 * needed
            for element in ordered[: size - needed + 1]:
                entry = heads.get(element * SIZES + other, END)
                while entry != END:
                    number, position = divmod(entries[entry], SIZES)
                    if position <= last and (bits ^ maps[number]).bit_count() <= differing:
                        yield number
                    entry = following[entry]


def _bit_map(elements: set[int]) -> int:
    bits = 0
    for element in elements:
        bits |= 1 << element % BITS
    return bits
