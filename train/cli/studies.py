"""Commands that compare and examine: `baselines`, `suspects`, `contamination`."""

from __future__ import annotations

import click

from train.cli.options import (
    SEEDS,
    CategoryOptions,
    ConfigOptions,
    RunOptions,
    category_options,
    config_options,
    run_options,
)
from train.support.command_options import FiniteRange

SHARE = FiniteRange(0, 1, min_open=True, max_open=True)


@click.command()
@category_options
@run_options
@config_options("teacher", "image_size", "bit_depth", "holdout_ratio", "smoothing_sigma", "pool_size")
@click.option("--methods", default="padim,patchcore", help="Which, with commas between.")
@SEEDS
@click.option("--force", is_flag=True, help="Compute also what is in baselines.json.")
def baselines(
    category: CategoryOptions,
    run: RunOptions,
    asked: ConfigOptions,
    methods: str,
    seeds: tuple[int, ...],
    force: bool,
) -> None:
    """Measure anomalib's PaDiM and PatchCore on fit's teacher, split, smoothing and test set; write baselines.json.

    They see pictures as they lie, also where the category's run aligns them.
    """
    from train.runs import tell_not_aligned
    from train.studies.baselines.results import baseline_table
    from train.studies.baselines.run import run_baselines

    config = asked.config()
    tell_not_aligned(run.runs_dir / category.name, "the comparison with other methods")
    results = run_baselines(
        category.find(runs_dir=run.runs_dir),
        config=config,
        methods=methods.split(","),
        seeds=seeds,
        run_dir=run.runs_dir / category.name,
        runtime=run.runtime(asked.weights_dir),
        force=force,
    )
    click.echo(baseline_table(results).markdown(), nl=False)


@click.command()
@category_options
@run_options
@config_options("teacher", "image_size", "bit_depth")
@click.option("--top", type=click.IntRange(min=1), default=24, help="Images in the table and on the page.")
def suspects(category: CategoryOptions, run: RunOptions, asked: ConfigOptions, top: int) -> None:
    """Rank training images that may show a defect, for a person to look at; write suspects.json and suspects.html.

    Places are compared wherever they lie in a picture, so that nothing is aligned.
    """
    from train.runs import tell_not_aligned
    from train.studies.suspects import rank_suspects, suspects_table, write_suspects

    config, run_dir = asked.config(), run.runs_dir / category.name
    images = category.find(runs_dir=run.runs_dir)
    tell_not_aligned(run_dir, "the search for suspects")
    ranked = rank_suspects(
        images,
        config=config,
        scratch_dir=run_dir,
        runtime=run.runtime(asked.weights_dir),
    )
    page = write_suspects(ranked, images, config=config, run_dir=run_dir, top=top)
    click.echo(suspects_table(ranked, top=top).markdown(), nl=False)
    click.echo(f"Nothing was removed. Look at them in {page}")


@click.command()
@category_options
@run_options
@config_options("teacher", "student", "image_size", "bit_depth", "steps", "epochs", "batch_size")
@click.option("--ratio", type=SHARE, default=0.05, help="Share of bad images among those trained on.")
@click.option(
    "--removed-ratio",
    type=SHARE,
    default=0.1,
    help="Share of the images, the most suspect, that the cleaned run leaves out.",
)
@SEEDS
def contamination(
    category: CategoryOptions,
    run: RunOptions,
    asked: ConfigOptions,
    ratio: float,
    removed_ratio: float,
    seeds: tuple[int, ...],
) -> None:
    """Measure how far AUROC falls with bad images among the training images; write contamination.json."""
    from train.runs import tell_not_aligned
    from train.studies.contamination import contamination_table, measure_contamination

    configs = [asked.config(seed=seed) for seed in seeds]
    tell_not_aligned(run.runs_dir / category.name, "the measurement with bad images")
    results = measure_contamination(
        category.find(runs_dir=run.runs_dir),
        configs=configs,
        ratio=ratio,
        removed_ratio=removed_ratio,
        run_dir=run.runs_dir / category.name,
        runtime=run.runtime(asked.weights_dir),
    )
    click.echo(contamination_table(results).markdown(), nl=False)
