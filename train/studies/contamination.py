"""How far the method falls when bad images lie among the good ones it learns from, and what looking at suspects saves.

Defective images are taken out of the test set and trained on as good ones. Three runs with one test set:
`clean` without them, `mixed` with them, `cleaned` with them after the most suspect images were removed unseen.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from train.config import FitConfig
from train.data.category import CategoryData, TestImage, read_category
from train.errors import DataError
from train.runs import evaluate_category, fit_category
from train.studies.suspects import rank_suspects
from train.support.files import write_text
from train.support.progress import console

VARIANTS = ("clean", "mixed", "cleaned")
MEASURES = ("image_auroc", "pixel_auroc", "pro")
PLANTED = "planted"  # starts the file names of bad images in train/good


@dataclass(frozen=True)
class ContaminationResult:
    """One seed.

    Attributes:
        seed: of the images that are planted, and of training.
        ratio: share of bad images among those trained on, 0 to 1.
        n_good: good images.
        n_planted: bad images among them.
        n_removed: images that `cleaned` leaves out.
        n_planted_removed: bad ones among those.
        n_test: images of the one test set.
        measures: by variant, then by name; None where they cannot be had.
        config: what was trained.
    """

    seed: int
    ratio: float
    n_good: int
    n_planted: int
    n_removed: int
    n_planted_removed: int
    n_test: int
    measures: dict[str, dict[str, float | None]]
    config: dict[str, Any]


def measure_contamination(
    data: CategoryData,
    *,
    configs: Sequence[FitConfig],
    ratio: float,
    removed_ratio: float,
    run_dir: Path,
    weights_dir: Path | None,
    device: torch.device,
    strict: bool,
) -> list[ContaminationResult]:
    """Train and evaluate the three variants with each configuration, one a seed.

    A variant's folder keeps its checkpoint, so a run that was cut off goes on where it stopped.

    Args:
        data: the category's images; its test set must have defective ones to spare.
        configs: they differ in their seed.
        ratio: share of bad images among those trained on, 0 to 1.
        removed_ratio: share of the mixed images that `cleaned` leaves out, 0 to 1.
        run_dir: takes contamination.json and contamination/.
        weights_dir: pretrained weights, see `train.method.pretrained_weights.load_weights`.
        device: where to train.
        strict: a broken image stops the run.

    Raises:
        UserError: bad images or weights, or too few defective test images.
    """
    results = []
    for config in configs:
        planted = choose_planted(data, ratio=ratio, seed=config.seed)
        test = [image for image in data.test if image not in planted]
        seed_dir = run_dir / "contamination" / f"seed{config.seed}"
        train = {"clean": named(data.train_good), "mixed": named(data.train_good, planted)}
        folders = {
            variant: lay_out(seed_dir / variant / "data", train=train[variant], test=test)
            for variant in ("clean", "mixed")
        }
        mixed = read_category(folders["mixed"], dataset=data.dataset, category=data.category)
        suspects = rank_suspects(
            mixed,
            config=config,
            scratch_dir=seed_dir,
            weights_dir=weights_dir,
            device=device,
            strict=strict,
        )
        removed = {path.name for path in suspects.paths[: math.ceil(removed_ratio * len(mixed.train_good))]}
        kept = {name: path for name, path in train["mixed"].items() if name not in removed}
        folders["cleaned"] = lay_out(seed_dir / "cleaned" / "data", train=kept, test=test)
        measures = {}
        for variant in VARIANTS:
            console.print(f"seed {config.seed}, {variant}")
            measures[variant] = train_and_evaluate(
                read_category(folders[variant], dataset=data.dataset, category=data.category),
                config=config,
                run_dir=seed_dir / variant,
                weights_dir=weights_dir,
                device=device,
                strict=strict,
            )
        results.append(
            ContaminationResult(
                seed=config.seed,
                ratio=ratio,
                n_good=len(data.train_good),
                n_planted=len(planted),
                n_removed=len(removed),
                n_planted_removed=sum(name.startswith(PLANTED) for name in removed),
                n_test=len(test),
                measures=measures,
                config=config.model_dump(mode="json"),
            )
        )
        described = {"category": data.category, "dataset": data.dataset, "synthetic": data.synthetic}
        text = json.dumps(described | {"results": [asdict(result) for result in results]}, indent=2)
        write_text(run_dir / "contamination.json", text + "\n")
    return results


def choose_planted(data: CategoryData, *, ratio: float, seed: int) -> tuple[TestImage, ...]:
    """Draw defective test images, so many that they are a share `ratio` of all that is trained on.

    Raises:
        DataError: the test set has too few, for some must stay.
    """
    defective = [image for image in data.test if image.anomalous]
    n_planted = max(1, round(ratio / (1 - ratio) * len(data.train_good)))
    if n_planted >= len(defective):
        raise DataError(
            f"{data.root} has {len(defective)} defective test images; expected more than the {n_planted} to be mixed "
            f"with {len(data.train_good)} good ones; lower --ratio."
        )
    order = np.random.default_rng(seed).permutation(len(defective))
    return tuple(defective[index] for index in sorted(order[:n_planted]))


def named(good: Sequence[Path], planted: Sequence[TestImage] = ()) -> dict[str, Path]:
    """Training images by their names in train/good."""
    names = {path.name: path for path in good}
    return names | {f"{PLANTED}_{image.defect}_{image.path.name}": image.path for image in planted}


def lay_out(root: Path, *, train: Mapping[str, Path], test: Sequence[TestImage]) -> Path:
    """A category's folder of links in MVTec AD's layout; one that is there is made anew."""
    shutil.rmtree(root, ignore_errors=True)
    links = {root / "train" / "good" / name: path for name, path in train.items()}
    for image in test:
        links[root / "test" / image.defect / image.path.name] = image.path
        if image.mask_path is not None:
            links[root / "ground_truth" / image.defect / image.mask_path.name] = image.mask_path
    for link, path in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return root


def train_and_evaluate(
    data: CategoryData,
    *,
    config: FitConfig,
    run_dir: Path,
    weights_dir: Path | None,
    device: torch.device,
    strict: bool,
) -> dict[str, float | None]:
    """The measures of one variant; nothing is done twice."""
    fit_category(
        data,
        preset=config.preset,
        overrides=config.model_dump(exclude={"preset"}),  # all of it: no older checkpoint's choices remain
        run_dir=run_dir,
        weights_dir=weights_dir,
        device=device,
        strict=strict,
        force=False,
    )
    evaluate_category(data, run_dir=run_dir, device=device, strict=strict, force=False)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    return {name: metrics[name] for name in MEASURES}


def contamination_table(results: Sequence[ContaminationResult]) -> Table:
    """Image AUROC of the three variants by seed, and their means."""
    first = results[0]
    table = Table(
        "seed", *VARIANTS, "bad images removed",
        title=f"Image AUROC with {first.n_planted} bad images in {first.n_planted + first.n_good} ({first.ratio:.0%})",
    )  # fmt: skip
    for result in results:
        found = f"{result.n_planted_removed} of {result.n_planted}, in {result.n_removed} removed"
        table.add_row(str(result.seed), *(_figure([result], variant) for variant in VARIANTS), found)
    if len(results) > 1:
        table.add_row("mean", *(_figure(results, variant) for variant in VARIANTS), "")
    return table


def _figure(results: Sequence[ContaminationResult], variant: str) -> str:
    values = [result.measures[variant]["image_auroc"] for result in results]
    found = [value for value in values if value is not None]
    return f"{np.mean(found):.4f}" if found else "not available"
