"""How far each judge is from PyTorch, as a table."""

from __future__ import annotations

from rich.table import Column, Table

from export.agreement import Agreement


def agreement_table(category: str, agreements: list[Agreement]) -> Table:
    """One line a judge."""
    n_images = agreements[0].n_images if agreements else 0
    judged_on = (agreements[0].judged_on if agreements else None) or "images"
    headings = ("map max", "mean", "score max", "AUROC", "PRO", "flips", "rejects")
    table = Table(
        "judge",
        *(Column(heading, justify="right") for heading in headings),
        title=f"{category}: judges beside PyTorch on {n_images} {judged_on}",
        caption="largest and mean differences; changes of AUROC and PRO; flipped labels; good images rejected",
    )
    for agreement in agreements:
        table.add_row(
            agreement.judge if agreement.accepted else f"{agreement.judge}: REFUSED",
            _shown(agreement.max_map_difference, ".1e"),
            _shown(agreement.mean_map_difference, ".1e"),
            _shown(agreement.max_score_difference, ".1e"),
            _shown(agreement.auroc_change, "+.4f"),
            _shown(agreement.pro_change, "+.4f"),
            str(agreement.flips),
            _shown(agreement.false_reject_rate, ".1%"),
        )
    return table


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
