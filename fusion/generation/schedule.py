"""How many samples when: sizes per round, quotas per label, held-out samples for influence."""

VALIDATION_SAMPLES = 100


def sizes(n: int, init: int, rounds: int, exact_end: bool) -> list[int]:
    """Accumulated samples per language model after the first writing and after each of `rounds` feedback
    rounds (FuseGen's schedule: init, init + delta, ..., n).

    With `exact_end` the remainder of (n - init) / rounds is spread over the rounds; without it is lost, as in
    the authors' code. Without rounds everything is written at once.
    """
    if rounds == 0:
        return [n]
    if rounds < 0 or not 0 < init <= n:
        raise ValueError(f"needs rounds >= 0 and 0 < init <= n, got rounds={rounds}, init={init}, n={n}")
    added = n - init
    if exact_end:
        return [init + added * done // rounds for done in range(rounds + 1)]
    return [init + added // rounds * done for done in range(rounds + 1)]


def quotas(total: int, parts: int, offset: int = 0) -> list[int]:
    """`total` in `parts` shares that differ by at most one; the larger ones start at part `offset` modulo
    `parts`, so that a caller who counts on evens them out over rounds."""
    share, remainder = divmod(total, parts)
    return [share + ((part - offset) % parts < remainder) for part in range(parts)]


def validation_draw(plms: int, held_out: int) -> int:
    """Held-out samples that each of `plms` data sets gives for influence: at most 100 in all."""
    return min(VALIDATION_SAMPLES // plms, held_out)
