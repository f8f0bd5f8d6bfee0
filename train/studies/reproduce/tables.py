"""Tables 1, 2 and 3 of a run over MVTec AD, beside the paper's columns and the methods it compares with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from model_repository.image_size import size_text
from train.config import FitConfig
from train.data.sources import MVTEC_AD_CATEGORIES
from train.evaluation.breakdown import SIZES
from train.studies.paper_figures import (
    OURS,
    TABLE_1_AVERAGES,
    TABLE_2,
    TABLE_3,
    TABLE_3_AVERAGES,
    mean,
    table_1,
    table_1_average,
)
from train.studies.run_result import RunResult
from train.support.files import replacing, write_json, write_text
from train.support.tables import SYNTHETIC_NOTE, ResultTable, difference, number

UNTRAINED_NOTE = "UNTRAINED BACKBONES: for tests only."
RUN_COLOUR, PAPER_COLOUR = "#c8553d", "#2b5c8a"


def result_tables(results: Sequence[RunResult], *, config: FitConfig) -> list[ResultTable]:
    """What was run, and the three tables."""
    return [run_table(results, config), image_table(results), pixel_table(results), size_table(results)]


def run_table(results: Sequence[RunResult], config: FitConfig) -> ResultTable:
    """Each category's three measures and what became of it."""

    def cells(result: RunResult) -> tuple[str, ...]:
        minutes = result.metrics.get("seconds_train")
        return (
            result.category,
            *(number(result.percent(measure)) for measure in ("image_auroc", "pixel_auroc", "pro")),
            number(None if minutes is None else minutes / 60),
            "done" if result.fault is None else "failed",
        )

    length = f"{config.steps} steps" if config.steps is not None else f"{config.epochs} epochs"
    notes = [
        f"{config.teacher} and {config.student} (preset {config.preset}), {size_text(config.image_size)} px, {length} "
        f"of {config.batch_size}, seed {config.seed}."
    ]
    notes += [f"{result.category} failed: {result.fault}" for result in results if result.fault is not None]
    notes += [SYNTHETIC_NOTE] if any(result.synthetic for result in results) else []
    notes += [UNTRAINED_NOTE] if config.weights == "random" else []
    averages = (number(_average(results, measure)) for measure in ("image_auroc", "pixel_auroc", "pro"))
    done = [result for result in results if result.fault is None]
    return ResultTable(
        title="Runs, percent",
        columns=("category", "image ROCAUC", "pixel ROCAUC", "PRO", "train minutes", "state"),
        rows=(
            *(cells(result) for result in results),
            ("average", *averages, "", f"{len(done)} of {len(results)}"),
        ),
        notes=tuple(notes),
    )


def image_table(results: Sequence[RunResult]) -> ResultTable:
    """Table 1: image ROCAUC beside the paper's and those of the methods it compares with."""
    others = [method for method in TABLE_1_AVERAGES if method != OURS]

    def line(
        label: str, run: float | None, paper: float | None, methods: Iterable[float | None]
    ) -> tuple[str, ...]:
        return label, number(run), number(paper), difference(run, paper), *map(number, methods)

    measured = {result.category: result.percent("image_auroc") for result in results}
    done = [category for category, value in measured.items() if value is not None]
    rows = [
        line(name, value, table_1(OURS, name), [table_1(method, name) for method in others])
        for name, value in measured.items()
    ]
    if 0 < len(done) < len(MVTEC_AD_CATEGORIES):
        rows.append(
            line(
                f"average of these {len(done)}",
                mean([measured[category] for category in done]),
                table_1_average(OURS, done),
                [table_1_average(method, done) for method in others],
            )
        )
    run = mean(list(measured.values())) if len(done) == len(MVTEC_AD_CATEGORIES) else None
    averages = map(TABLE_1_AVERAGES.__getitem__, others)
    rows.append(line("average of all 15", run, TABLE_1_AVERAGES[OURS], averages))
    return ResultTable(
        title="Table 1: image ROCAUC, percent",
        columns=("category", "this run", "paper", "difference", *others),
        rows=tuple(rows),
        notes=("MLIR, STFPM and DeSTSeg report averages only.",),
    )


def pixel_table(results: Sequence[RunResult]) -> ResultTable:
    """Table 2: pixel ROCAUC and PRO, averages over the data set."""
    done = [result for result in results if result.percent("pixel_auroc") is not None]
    run = (
        f"this run, {len(done)} of {len(MVTEC_AD_CATEGORIES)} categories",
        number(_average(results, "pixel_auroc")),
        number(_average(results, "pro")),
    )
    others = [method for method in TABLE_2 if method != OURS]
    rows = [
        ("paper" if method == OURS else method, *map(number, TABLE_2[method])) for method in (OURS, *others)
    ]
    return ResultTable(
        title="Table 2: pixel ROCAUC and PRO, percent",
        columns=("method", "pixel ROCAUC", "PRO"),
        rows=(run, *rows),
        notes=("The paper gives averages over all 15 categories.",)
        if len(done) < len(MVTEC_AD_CATEGORIES)
        else (),
    )


def size_table(results: Sequence[RunResult]) -> ResultTable:
    """Table 3: image ROCAUC by defect size."""

    def row(label: str, run: Sequence[float | None], paper: Sequence[float | None]) -> tuple[str, ...]:
        pairs = zip(run, paper, strict=True)
        return label, *(number(value) for pair in pairs for value in pair)

    by_size = {result.category: [result.percent_of_size(size) for size in SIZES] for result in results}
    rows = [row(category, values, TABLE_3[category]) for category, values in by_size.items()]
    # Both averages of a column are of the same categories: those of which the run and the paper have a figure.
    pairs = [
        [(values[size], TABLE_3[name][size]) for name, values in by_size.items()]
        for size in range(len(SIZES))
    ]
    both = [[pair for pair in column if None not in pair] for column in pairs]
    rows.append(
        row(
            "average of what both have",
            [mean([run for run, _ in column]) for column in both],
            [mean([paper for _, paper in column]) for column in both],
        )
    )
    heads = (f"{size}, {which}" for size in SIZES for which in ("this run", "paper"))
    measured = any("by_size" in result.metrics for result in results)
    return ResultTable(
        title="Table 3: image ROCAUC by defect size, percent",
        columns=("category", *heads),
        rows=(*rows, row("the paper's, of all 15", [None] * len(SIZES), TABLE_3_AVERAGES)),
        notes=(
            "Small: under 5 % of the pixels, middle: 5 to 20 %, large: over 20 %.",
            *(() if measured else ("The evaluations of this run say nothing about sizes; evaluate again.",)),
        ),
    )


def write_results(results: Sequence[RunResult], *, config: FitConfig, runs_dir: Path) -> list[Path]:
    """Write reproduce.json, reproduce.md and reproduce.png; their paths."""
    paths = [runs_dir / f"reproduce.{suffix}" for suffix in ("json", "md", "png")]
    content = {
        "config": config.model_dump(mode="json"),
        "synthetic": any(result.synthetic for result in results),
        "categories": {
            result.category: {"metrics": dict(result.metrics) or None, "fault": result.fault}
            for result in results
        },
    }
    write_json(paths[0], content)
    tables = "\n".join(table.markdown() for table in result_tables(results, config=config))
    write_text(
        paths[1], f"# MVTec AD, beside the paper\n\n{tables}\n![Image ROCAUC by category](reproduce.png)\n"
    )
    with replacing(paths[2]) as temporary:
        auroc_figure(results).savefig(temporary, format="png", dpi=130)
    return paths


def auroc_figure(results: Sequence[RunResult]) -> Figure:
    """Image ROCAUC of each category: the run's and the paper's."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    categories = [result.category for result in results]
    done = [
        (index, value)
        for index, result in enumerate(results)
        if (value := result.percent("image_auroc")) is not None
    ]
    paper = [table_1(OURS, category) or 0.0 for category in categories]
    axes.scatter(range(len(categories)), paper, marker="_", s=180, color=PAPER_COLOUR, label="paper")
    axes.scatter(
        [index for index, _ in done], [value for _, value in done], color=RUN_COLOUR, label="this run"
    )
    axes.set_xticks(range(len(categories)), categories, rotation=60, ha="right")
    synthetic = any(result.synthetic for result in results)
    axes.set(ylabel="image ROCAUC, %", title="SYNTHETIC DATA" if synthetic else "")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _average(results: Sequence[RunResult], measure: str) -> float | None:
    return mean([result.percent(measure) for result in results])
