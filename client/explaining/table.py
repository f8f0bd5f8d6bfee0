"""An explanation as a table on the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from client.console import printable
from client.explaining.explanation import Explanation
from client.explaining.picture import usual_range


def explanation_table(explanation: Explanation) -> Table:
    """What each stage adds to the score, beside what it adds to those of good images."""
    verdict, usual = explanation.verdict, explanation.usual
    table = Table(title=escape(printable(explanation.image)))
    if explanation.synthetic:
        table.caption = "SYNTHETIC DATA: trained on rendered images"
    table.add_column("")
    for heading in ("adds to the score", "share", "on good images"):
        table.add_column(heading, justify="right")
    for index, stage in enumerate(explanation.stages):
        table.add_row(
            f"stage {stage.number}",
            f"{stage.contribution:.4f}",
            f"{100 * stage.share:.1f} %",
            usual_range(usual.stages[index]) if usual else "not known",
        )
    table.add_section()
    table.add_row(
        "score", f"{verdict.score:.4f}", "100.0 %", usual_range(usual.score) if usual else "not known"
    )
    table.add_row("threshold", f"{verdict.threshold:.4f}", "", "")
    return table


def place_sentence(explanation: Explanation) -> str:
    """The verdict, and where to look."""
    verdict, maximum = explanation.verdict, explanation.maximum
    word = "Anomalous" if verdict.anomalous else "Good"
    return (
        f"{word} by release {verdict.release_id}; the anomaly map is highest at column {maximum.x}, row {maximum.y} of "
        f"{verdict.original_size[0]} x {verdict.original_size[1]} pixels ({maximum.value:.4f})."
    )
