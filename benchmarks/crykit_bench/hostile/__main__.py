"""`python -m crykit_bench.hostile`: counts of how damaged bundles end, and every fault."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import click

from crykit.bundle import MANIFEST_NAME, Bundle, resolve_model
from crykit_bench.hostile.case import Workshop
from crykit_bench.hostile.pool import Result, attempt_all

OUTCOMES = {
    "digest": "refused: digest",
    "manifest": "refused: manifest",
    "runtime": "refused: runtime",
    "disagrees": "ran, disagrees",
    "agrees": "ran, agrees",
    "crashed": "child crashed",
    "hung": "child hung",
    "escaped": "escaped",
}


@click.command()
@click.option("--runs", type=click.IntRange(1), default=2000, show_default=True, help="Cases.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of all of them.")
@click.option("--model", metavar="PATH|NAME", help="Bundle to damage; default: shipped.")
@click.option("--children", type=click.IntRange(1), default=2, show_default=True, help="At a time.")
@click.option("--case", "only", type=int, metavar="N", help="One case alone, with its message.")
def command(runs: int, seed: int, model: str | None, children: int, only: int | None) -> None:
    """Damage a bundle's models and manifest in many ways and count what comes of it.

    A fault is an exception that is no one-line refusal, or a file that was parsed although its
    digest does not match. Exits 1 where there is one.
    """
    folder = Bundle.open(resolve_model(model)).folder
    numbers = list(range(runs)) if only is None else [only]
    with tempfile.TemporaryDirectory(prefix="crykit-hostile-") as scratch:
        workshop = Workshop(folder, Path(scratch), seed)
        results = attempt_all(workshop, Path(scratch), numbers, children, _progress(len(numbers)))
    if only is None:
        click.echo(table(results))
    for result in results:
        if only is not None or result.outcome in ("crashed", "hung"):
            click.echo(_line(result))
    faults = [result for result in results if result.fault]
    for result in faults:
        click.echo(f"fault: {result.fault}: {_line(result)}", err=True)
    sys.exit(1 if faults else 0)


def table(results: list[Result]) -> str:
    """Counts by what was damaged (rows) and how it ended (columns)."""
    counts = Counter((_kind(result), result.outcome) for result in results)
    kinds = sorted({kind for kind, _ in counts})
    rows = [["", *kinds, "all"]]
    for outcome, words in OUTCOMES.items():
        by_kind = [counts[kind, outcome] for kind in kinds]
        rows.append([words, *map(str, by_kind), str(sum(by_kind))])
    totals = [sum(counts[kind, outcome] for outcome in OUTCOMES) for kind in kinds]
    rows.append(["all", *map(str, totals), str(len(results))])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {c.rjust(w)}" for c, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def _kind(result: Result) -> str:
    if result.case.file == MANIFEST_NAME:
        return "manifest"
    kind = Path(result.case.file).suffix
    return kind if result.case.sealed else f"{kind}, unsealed"


def _line(result: Result) -> str:
    case = result.case
    what = f"case {case.number}: {case.how} in {case.file}, {case.runtime} {case.precision}"
    return f"{what}: {result.outcome}: {result.message}"


def _progress(total: int):
    done = 0

    def told(result: Result) -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            click.echo(f"\r{done} of {total}", nl=done == total, err=True)

    return told


if __name__ == "__main__":
    command()
