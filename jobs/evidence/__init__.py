"""Holds what the papers claim against runs, and writes down what came out.

    measuring.py  the number of a run that a claim is about
    records.py    runs as lines of a file, which outlast their directories
    testing.py    what several runs say together
    page.py       the page, in Markdown; figure.py draws its figure

A run counts only if its configuration ships: it may differ from the file in its seed, in where its data lie
and in what the claims say they set, and in nothing else. The same runs give the same page.
"""

from pathlib import Path

import typer

from configs.load import load
from configs.schema.base import ConfigError
from configs.schema.evidence import EvidenceConfig
from jobs.evidence import figure, page, records
from jobs.evidence.measuring import kinds
from jobs.evidence.testing import judge


def main(config_path: str, overrides: list[str], runs: list[str], output: str) -> None:
    """Write the page `output`, beside it the records of its runs, and its figure in `figures`; says which of
    `runs`, directories or files of such records, it could not use."""
    config = load(config_path, EvidenceConfig, overrides)
    found = records.load(runs)
    pairs = [
        (claim, of) for s in config.sections for claim in s.claims for of in (claim.measure, claim.against)
    ]
    wanted = sorted({kind for pair in pairs for kind in kinds(*pair)})
    used = [run for run in found if any(not run.strays(kind) for kind in wanted)]
    for run in found:
        if run not in used:
            typer.echo(f"{run.run}: not used: {run.why_not(wanted)}", err=True)
    if not used:
        raise ConfigError("evidence: none of these runs is one that the claims are about")
    verdicts = [[judge(claim, used) for claim in section.claims] for section in config.sections]
    place = Path(output)
    try:
        (place.parent / "figures").mkdir(parents=True, exist_ok=True)
        (place.parent / "figures" / f"{place.stem}.svg").write_text(figure.draw(verdicts))
        records.write(place.with_suffix(records.SUFFIX), used, [measure for _, measure in pairs])
        place.write_text(page.render(config, verdicts, used, wanted, f"figures/{place.stem}.svg"))
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written: {error.strerror}") from None
    tested = [verdict for section in verdicts for verdict in section if verdict.tested]
    typer.echo(f"{output}: {len(tested)} claims tested on {len(used)} runs")
