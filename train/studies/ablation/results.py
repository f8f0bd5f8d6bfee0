"""An ablation's rows beside the paper's figures: as Markdown, as JSON, and Figure 6 as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from model_repository.image_size import size_text
from train.studies.ablation.rows import Ablation
from train.studies.ablation.run import AblationResult, RowResult
from train.support.files import replacing, write_json, write_text
from train.support.tables import SYNTHETIC_NOTE, ResultTable, number, with_spread

IMAGE_COLOUR, PIXEL_COLOUR = "#2b5c8a", "#c8553d"


def ablation_table(result: AblationResult) -> ResultTable:
    """Image and pixel ROCAUC of each row in percent, each beside the paper's."""

    def cells(row: RowResult) -> tuple[str, ...]:
        paper = row.row.paper
        return (
            *row.row.label,
            with_spread(*row.mean_and_spread("image_auroc")),
            number(paper.image),
            with_spread(*row.mean_and_spread("pixel_auroc")),
            number(paper.pixel),
        )

    ablation = result.ablation
    faults = [f"Row {index}: {row.fault}" for index, row in enumerate(result.rows, start=1) if row.fault]
    return ResultTable(
        title=ablation.title,
        columns=(*ablation.columns, "image ROCAUC %", "paper", "pixel ROCAUC %", "paper"),
        rows=tuple(map(cells, result.rows)),
        notes=(_conditions(result), *ablation.notes, *faults),
    )


def write_ablation(result: AblationResult, *, folder: Path) -> list[Path]:
    """Write `<name>.md` and `<name>.json`, and figure-6.png for Figure 6; the paths of all."""
    name = result.ablation.name
    paths = [folder / f"{name}.{suffix}" for suffix in ("md", "json")]
    text = ablation_table(result).markdown()
    if name == "figure-6":
        paths.append(folder / "figure-6.png")
        with replacing(paths[-1]) as temporary:
            ratio_figure(result.rows).savefig(temporary, format="png", dpi=130)
        text += "\n![ROCAUC by masking ratio](figure-6.png)\n"
    write_text(paths[0], text)
    write_json(paths[1], as_json(result))
    return paths


def as_json(result: AblationResult) -> dict[str, Any]:
    """All runs, means and spreads, percent."""
    return {
        "name": result.ablation.name,
        "title": result.ablation.title,
        "categories": [product.category for product in result.products],
        "synthetic": any(product.synthetic for product in result.products),
        "seeds": list(result.settings.seeds),
        "base": result.settings.base.model_dump(mode="json"),
        "rows": [_row_as_json(result.ablation, row) for row in result.rows],
    }


def ratio_figure(rows: Sequence[RowResult]) -> Figure:
    """Figure 6: image ROCAUC in blue and pixel ROCAUC in red over the masking ratio, spreads as bars."""
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.subplots()
    kinds = (("image_auroc", IMAGE_COLOUR, "image"), ("pixel_auroc", PIXEL_COLOUR, "pixel"))
    for measure, colour, label in kinds:
        points = [(result.row.overrides["mask_ratio"], *result.mean_and_spread(measure)) for result in rows]
        known = [(ratio, value, spread or 0.0) for ratio, value, spread in points if value is not None]
        if known:
            ratios, values, spreads = zip(*known, strict=True)
            axes.errorbar(
                ratios, values, yerr=spreads, color=colour, marker="o", capsize=3, label=f"{label} ROCAUC"
            )
    axes.set(
        xlabel="masking ratio", ylabel="ROCAUC, %", xticks=[row.row.overrides["mask_ratio"] for row in rows]
    )
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure


def _row_as_json(ablation: Ablation, result: RowResult) -> dict[str, Any]:
    image, pixel = (result.mean_and_spread(measure) for measure in ("image_auroc", "pixel_auroc"))
    paper = result.row.paper
    return {
        "label": dict(zip(ablation.columns, result.row.label, strict=True)),
        "overrides": dict(result.row.overrides),
        "fault": result.fault,
        "image": {"mean": image[0], "spread": image[1], "paper": paper.image},
        "pixel": {"mean": pixel[0], "spread": pixel[1], "paper": paper.pixel},
        "runs": [
            {
                "category": run.category,
                "seed": run.seed,
                "image": run.percent("image_auroc"),
                "pixel": run.percent("pixel_auroc"),
                "pro": run.percent("pro"),
                "fault": run.fault,
            }
            for run in result.runs
        ],
    }


def _conditions(result: AblationResult) -> str:
    """A sentence on what was averaged and how it was trained, beside the paper's."""
    base, products = result.settings.base, result.products
    length = f"{base.steps} steps" if base.steps is not None else f"{base.epochs} epochs"
    categories = ", ".join(f"{product.dataset}/{product.category}" for product in products)
    seeds = ", ".join(map(str, result.settings.seeds))
    spread = "" if len(result.settings.seeds) == 1 else ", ± standard deviation over the seeds"
    weights = "" if base.weights == "pretrained" else " UNTRAINED BACKBONES: for tests only."
    synthetic = f" {SYNTHETIC_NOTE}" if any(product.synthetic for product in products) else ""
    return (
        f"Mean over {categories}; seeds {seeds}{spread}; {length} of {base.batch_size}, "
        f"{size_text(base.image_size)} px. The paper's figures are of MVTec AD, 200 epochs, its own "
        f"networks.{weights}{synthetic}"
    )
