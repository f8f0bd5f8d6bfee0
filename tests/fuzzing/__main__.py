"""`python -m tests.fuzzing --minutes 60`: prints what was tried and found; ends with 1 where something was."""

from __future__ import annotations

import sys
import time

import click

from tests.fuzzing.rounds import fuzz
from tests.fuzzing.steps import running_steps


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0), default=1.0, show_default=True)
@click.option("--seed", type=int, default=None, help="[default: the time]")
def main(minutes: float, seed: int | None) -> None:
    """Fuzz decoder and fusion."""
    seed = int(time.time()) if seed is None else seed
    with running_steps() as steps:
        findings = fuzz(steps, seconds=60 * minutes, seed=seed)
        click.echo(
            f"{steps.asked:,} inputs in {minutes:g} minutes, seed {seed}: {steps.judged:,} judged, the others refused, "
            f"{len(findings)} findings"
        )
    for finding in findings:
        click.echo(f"  tests/fuzzing/corpus/{finding}")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
