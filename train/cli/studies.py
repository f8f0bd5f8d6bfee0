"""Commands that compare and examine: `baselines`, `suspects`, `contamination`, `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from train.cli.options import (
    category_options,
    config_option,
    overrides_of,
    parse_seeds,
    preset_option,
    run_options,
    show_banner,
    weights_options,
)
from train.support.devices import choose_device


@click.command()
@category_options
@run_options
@preset_option
@config_option("teacher")
@config_option("image_size")
@config_option("holdout_ratio")
@weights_options
@click.option("--methods", default="padim,patchcore", help="Which, with commas between.")
@click.option("--seeds", default="0", callback=parse_seeds, help="Seeds, with commas between.")
@click.option("--force", is_flag=True, help="Compute also what is in baselines.json.")
def baselines(
    category: str,
    data: str,
    data_dir: Path,
    runs_dir: Path,
    strict: bool,
    device: str,
    preset: str | None,
    weights_dir: Path | None,
    random_weights: bool,
    methods: str,
    seeds: tuple[int, ...],
    force: bool,
    **fields: Any,
) -> None:
    """Measure PaDiM and PatchCore on the teacher's features, with fit's split and test set; write baselines.json."""
    from rich.console import Console

    from train.config import fit_config
    from train.data.sources import find_category
    from train.studies.baselines.results import baseline_table
    from train.studies.baselines.run import run_baselines

    config = fit_config(preset or "edge", overrides_of(fields, random_weights=random_weights))
    found = find_category(category, data=data, data_dir=data_dir)
    show_banner(found.synthetic)
    results = run_baselines(
        found,
        config=config,
        methods=methods.split(","),
        seeds=seeds,
        run_dir=runs_dir / category,
        weights_dir=weights_dir,
        device=choose_device(device),
        strict=strict,
        force=force,
    )
    Console().print(baseline_table(results))


@click.command()
@category_options
@run_options
@preset_option
@config_option("teacher")
@config_option("image_size")
@weights_options
@click.option("--top", type=click.IntRange(min=1), default=24, help="Images in the table and on the page.")
def suspects(
    category: str,
    data: str,
    data_dir: Path,
    runs_dir: Path,
    strict: bool,
    device: str,
    preset: str | None,
    weights_dir: Path | None,
    random_weights: bool,
    top: int,
    **fields: Any,
) -> None:
    """Rank training images that may show a defect, for a person to look at; write suspects.json and suspects.html."""
    from rich.console import Console

    from train.config import fit_config
    from train.data.sources import find_category
    from train.studies.suspects import rank_suspects, suspects_table, write_suspects

    config = fit_config(preset or "edge", overrides_of(fields, random_weights=random_weights))
    found = find_category(category, data=data, data_dir=data_dir)
    show_banner(found.synthetic)
    run_dir = runs_dir / category
    ranked = rank_suspects(
        found,
        config=config,
        scratch_dir=run_dir,
        weights_dir=weights_dir,
        device=choose_device(device),
        strict=strict,
    )
    page = write_suspects(ranked, found, config=config, run_dir=run_dir, top=top)
    Console().print(suspects_table(ranked, top=top))
    click.echo(f"Nothing was removed. Look at them in {page}")


@click.command()
@category_options
@run_options
@preset_option
@config_option("teacher")
@config_option("student")
@config_option("image_size")
@config_option("steps")
@config_option("epochs")
@config_option("batch_size")
@weights_options
@click.option(
    "--ratio",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    help="Share of bad images among those trained on.",
)
@click.option(
    "--removed-ratio",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    help="Share of the images, the most suspect, that the cleaned run leaves out.",
)
@click.option("--seeds", default="0", callback=parse_seeds, help="Seeds, with commas between.")
def contamination(
    category: str,
    data: str,
    data_dir: Path,
    runs_dir: Path,
    strict: bool,
    device: str,
    preset: str | None,
    weights_dir: Path | None,
    random_weights: bool,
    ratio: float,
    removed_ratio: float,
    seeds: tuple[int, ...],
    **fields: Any,
) -> None:
    """Measure how far AUROC falls with bad images among the training images; write contamination.json."""
    from rich.console import Console

    from train.config import fit_config
    from train.data.sources import find_category
    from train.studies.contamination import contamination_table, measure_contamination

    overrides = overrides_of(fields, random_weights=random_weights)
    configs = [fit_config(preset or "edge", overrides | {"seed": seed}) for seed in seeds]
    found = find_category(category, data=data, data_dir=data_dir)
    show_banner(found.synthetic)
    results = measure_contamination(
        found,
        configs=configs,
        ratio=ratio,
        removed_ratio=removed_ratio,
        run_dir=runs_dir / category,
        weights_dir=weights_dir,
        device=choose_device(device),
        strict=strict,
    )
    Console().print(contamination_table(results))


@click.command()
@category_options
@run_options
@preset_option
@config_option("teacher")
@config_option("student")
@config_option("image_size")
@config_option("batch_size")
@weights_options
@click.option(
    "--round-steps", type=click.IntRange(min=1), default=5, help="Steps that one time is taken over."
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Pairs of times, after one to warm up.")
def bench(
    category: str,
    data: str,
    data_dir: Path,
    runs_dir: Path,
    strict: bool,
    device: str,
    preset: str | None,
    weights_dir: Path | None,
    random_weights: bool,
    round_steps: int,
    rounds: int,
    **fields: Any,
) -> None:
    """Measure training against a plain loop of the same network, both in one run, in turns."""
    from rich.console import Console

    from train.config import fit_config
    from train.data.sources import find_category
    from train.fitting.bench import comparison_table, run_training_bench, verdict

    config = fit_config(preset or "edge", overrides_of(fields, random_weights=random_weights))
    found = find_category(category, data=data, data_dir=data_dir)
    show_banner(found.synthetic)
    comparison = run_training_bench(
        found,
        config=config,
        weights_dir=weights_dir,
        device=choose_device(device),
        strict=strict,
        round_steps=round_steps,
        rounds=rounds,
        scratch_dir=runs_dir,
    )
    Console().print(comparison_table(comparison))
    click.echo(verdict(comparison))
