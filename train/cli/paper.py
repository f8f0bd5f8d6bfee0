"""Commands that do the paper's tables again: `complexity`, `ablate`, `reproduce`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from train.cli.options import (
    DATA,
    DATA_DIR,
    DEVICE,
    PATH,
    SEEDS,
    CategoryOptions,
    ConfigOptions,
    RunOptions,
    config_option,
    config_options,
    given,
    run_options,
    show_banner,
)
from train.config import PRESETS
from train.support.command_options import options_as
from train.support.devices import choose_device

TABLES = ("4", "6", "7", "8")
FIGURES = ("6",)
# What a run may change of the paper's protocol.
PROTOCOL_FIELDS = ("image_size", "batch_size", "epochs", "steps")


@click.command()
@click.option("--preset", type=click.Choice(list(PRESETS)), help="A pair to measure beside the paper's.")
@config_option("teacher")
@config_option("student")
@config_option("image_size")
@click.option("--paper-rows/--no-paper-rows", default=True, help="The three students of the paper's Table 5.")
@click.option("--repeats", default=20, type=click.IntRange(min=1), help="Timed runs; the median is shown.")
@DEVICE
@click.option("--json", "json_path", type=PATH, help="Write the figures to this file, too.")
def complexity(
    preset: str | None,
    paper_rows: bool,
    repeats: int,
    device: str,
    json_path: Path | None,
    **fields: Any,
) -> None:
    """Print Table 5 for the paper's pairs and any other: parameters, GMACs and time, beside the paper's figures."""
    from train.studies.complexity import complexity_table, measure_pair, pairs_to_measure
    from train.support.devices import hardware_name
    from train.support.files import write_json

    chosen = choose_device(device)
    configs = pairs_to_measure(preset, given(fields), paper_rows=paper_rows)
    rows = [measure_pair(config, device=chosen, repeats=repeats) for config in configs]
    machine = hardware_name(chosen)
    click.echo(complexity_table(rows, hardware=machine, repeats=repeats).markdown(), nl=False)
    if json_path is not None:
        content = {"hardware": machine, "repeats": repeats, "rows": [asdict(row) for row in rows]}
        write_json(json_path, content)


network_options = options_as(
    "networks",
    dict,
    click.option("--wide", help="Network in WideResNet50's part.  [default: the preset's teacher]"),
    click.option("--next", "resnext", help="Network in ResNeXt50's part.  [default: the preset's student]"),
    click.option(
        "--resnet", help="Network in ResNet50's part.  [paper: resnet50, edge: tf_efficientnet_lite1]"
    ),
    click.option(
        "--identical-student",
        type=click.Choice(["scratch", "pretrained"]),
        default="scratch",
        help="Start of a student that is the teacher's network, too (Tables 4 and 6).",
    ),
)


@click.command()
@click.option("--table", "tables", type=click.Choice(TABLES), multiple=True, help="Table; may be repeated.")
@click.option("--figure", "figures", type=click.Choice(FIGURES), multiple=True, help="Figure.")
@click.option(
    "--category", "categories", multiple=True, required=True, help="Product; repeated, rows are averages."
)
@DATA
@DATA_DIR
@run_options
@config_options(*PROTOCOL_FIELDS, preset="paper")
@SEEDS
@network_options
@click.option(
    "--keep-checkpoints", is_flag=True, help="Keep them when a run is measured: 0.2 GB each for paper."
)
def ablate(
    tables: tuple[str, ...],
    figures: tuple[str, ...],
    categories: tuple[str, ...],
    data: str | None,
    data_dir: Path,
    run: RunOptions,
    asked: ConfigOptions,
    seeds: tuple[int, ...],
    networks: dict[str, Any],
    keep_checkpoints: bool,
) -> None:
    """Run the paper's ablations on any data and set each row beside the paper's; goes on where it was stopped."""
    if not tables and not figures:
        raise click.UsageError("Nothing to run; give --table 4, 6, 7 or 8, or --figure 6.")
    from train.errors import TrainingError
    from train.studies.ablation.results import ablation_table, write_ablation
    from train.studies.ablation.rows import ABLATIONS, Networks
    from train.studies.ablation.run import RunSettings, run_ablations

    choose_device(run.device)  # at once: every run would fail of one that cannot be used
    settings = RunSettings(
        base=asked.config(),
        seeds=seeds,
        runs_dir=run.runs_dir,
        runtime=run.runtime(asked.weights_dir),
        keep_checkpoints=keep_checkpoints,
    )
    parts = Networks.of_preset(settings.base.preset, **networks)
    experiments = [f"table-{table}" for table in tables] + [f"figure-{figure}" for figure in figures]
    ablations = [ABLATIONS[name](parts) for name in dict.fromkeys(experiments)]
    chosen = [CategoryOptions(name, data, data_dir) for name in dict.fromkeys(categories)]
    products = [category.find(runs_dir=run.runs_dir, quiet=True) for category in chosen]
    show_banner(any(product.synthetic for product in products))
    results = run_ablations(ablations, products, settings=settings)
    folder = run.runs_dir / (products[0].category if len(products) == 1 else "") / "ablations"
    for result in results:
        click.echo(ablation_table(result).markdown())
        for path in write_ablation(result, folder=folder):
            click.echo(f"Written: {path}")
    faults = [one.fault for result in results for row in result.rows for one in row.runs if one.fault]
    if faults:
        raise TrainingError(
            f"{len(faults)} runs failed, the first: {faults[0]} Finished runs are kept; mend it and run again."
        )


@click.command()
@click.option(
    "--data", default="mvtec_ad", help="mvtec_ad, synthetic, or a folder that holds the categories' folders."
)
@DATA_DIR
@click.option("--categories", default="all", help="Some of the 15, with commas between.")
@run_options
@config_options(*PROTOCOL_FIELDS, "teacher", "student", preset="paper")
@click.option(
    "--force",
    is_flag=True,
    help="Train also where a finished run has other options or images; it is kept in its folder earlier/.",
)
def reproduce(
    data: str, data_dir: Path, categories: str, run: RunOptions, asked: ConfigOptions, force: bool
) -> None:
    """Train and evaluate all of MVTec AD and set Tables 1, 2 and 3 beside the paper's; skips what is there."""
    from train.errors import TrainingError
    from train.studies.reproduce.run import chosen_categories, run_category
    from train.studies.reproduce.tables import result_tables, write_results

    config = asked.config()
    chosen, runtime = chosen_categories(categories), run.runtime(asked.weights_dir)
    choose_device(run.device)  # at once: every run would fail of one that cannot be used
    results = []
    for category in chosen:
        result = run_category(
            category,
            data=data,
            data_dir=data_dir,
            config=config,
            runs_dir=run.runs_dir,
            runtime=runtime,
            replace=force,
        )
        results.append(result)
        # After each: whoever stops it has the table of what is done.
        paths = write_results(results, config=config, runs_dir=run.runs_dir)
    show_banner(any(result.synthetic for result in results))
    for table in result_tables(results, config=config):
        click.echo(table.markdown())
    click.echo(f"Written: {', '.join(map(str, paths))}")
    failed = [result.category for result in results if result.fault is not None]
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(results)} categories failed: {', '.join(failed)}; the first table says why. "
            "The others are kept; mend them and run again."
        )
