"""How far image AUROC falls when defective images lie among the good ones that are trained on.

Some defective images are taken out of the test set and put among the training images. Three runs share one test set:
`clean` trains without them, `mixed` with them, and `cleaned` with them after the most suspect images of
`train.studies.suspects` were removed, without a person looking.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.config import FitConfig
from train.data.category import CategoryData, TestImage, read_category
from train.errors import DataError
from train.runs import fit_and_evaluate
from train.studies.paper_figures import mean
from train.studies.suspects import rank_suspects
from train.support.devices import Runtime
from train.support.files import write_json
from train.support.progress import console
from train.support.tables import ResultTable, share

VARIANTS = ("clean", "mixed", "cleaned")
MEASURES = ("image_auroc", "pixel_auroc", "pro")
PLANTED = "planted"  # starts the file names of defective images in train/good


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
        n_test: images of the test set that all three variants share.
        measures: by variant, then by name; None where they cannot be computed.
        config: the configuration that was trained.
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
    runtime: Runtime,
) -> list[ContaminationResult]:
    """Train and evaluate the three variants with each configuration, one a seed.

    A variant's folder keeps its checkpoint, so a run that was cut off goes on where it stopped.

    Args:
        data: the category's images; its test set must have defective ones to spare.
        configs: they differ in their seed.
        ratio: share of bad images among those trained on, 0 to 1.
        removed_ratio: share of the mixed images that `cleaned` leaves out, 0 to 1.
        run_dir: takes contamination.json and contamination/.
        runtime: where and how to train.

    Raises:
        UserError: bad images or weights, or too few defective test images.
    """
    results = []
    for config in configs:
        result = measure_seed(
            data,
            config=config,
            ratio=ratio,
            removed_ratio=removed_ratio,
            seed_dir=run_dir / "contamination" / f"seed{config.seed}",
            runtime=runtime,
        )
        results.append(result)
        described = {"category": data.category, "dataset": data.dataset, "synthetic": data.synthetic}
        content = described | {"results": [asdict(result) for result in results]}
        write_json(run_dir / "contamination.json", content)
    return results


def measure_seed(
    data: CategoryData,
    *,
    config: FitConfig,
    ratio: float,
    removed_ratio: float,
    seed_dir: Path,
    runtime: Runtime,
) -> ContaminationResult:
    """Lay out, train and evaluate the three variants with one configuration; see `measure_contamination`."""
    planted = choose_planted(data, ratio=ratio, seed=config.seed)
    test = [image for image in data.test if image not in planted]
    mixed = named(data.train_good, planted)
    variants = {
        "clean": lay_out(data, seed_dir / "clean" / "data", train=named(data.train_good), test=test),
        "mixed": lay_out(data, seed_dir / "mixed" / "data", train=mixed, test=test),
    }
    suspects = rank_suspects(variants["mixed"], config=config, scratch_dir=seed_dir, runtime=runtime)
    removed = {path.name for path in suspects.paths[: math.ceil(removed_ratio * len(mixed))]}
    cleaned = {name: path for name, path in mixed.items() if name not in removed}
    variants["cleaned"] = lay_out(data, seed_dir / "cleaned" / "data", train=cleaned, test=test)
    measures = {}
    for variant, images in variants.items():
        console.print(f"seed {config.seed}, {variant}")
        metrics = fit_and_evaluate(
            images, config=config, run_dir=seed_dir / variant, runtime=runtime, replace=True
        )
        measures[variant] = {name: metrics[name] for name in MEASURES}
    return ContaminationResult(
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


def choose_planted(data: CategoryData, *, ratio: float, seed: int) -> tuple[TestImage, ...]:
    """Draw as many defective test images as make up a share `ratio` of all images that are trained on.

    Raises:
        DataError: the test set has too few: at least one defective image must stay in it.
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
    names = distinct_names([(image.defect, image.path.name) for image in planted])
    renamed = {
        f"{PLANTED}_{image.defect}_{name}": image.path for image, name in zip(planted, names, strict=True)
    }
    return dict(zip(distinct_names([("good", path.name) for path in good]), good, strict=True)) | renamed


def distinct_names(files: Sequence[tuple[str, str]]) -> list[str]:
    """Names of files, each given by its kind and its name, for one folder a kind.

    Files of sub-folders may share a name: each of them gets its position in front, so that none replaces another.
    """
    count = Counter(files)
    return [
        name if count[kind, name] == 1 else f"{position}-{name}"
        for position, (kind, name) in enumerate(files)
    ]


def lay_out(
    data: CategoryData, root: Path, *, train: Mapping[str, Path], test: Sequence[TestImage]
) -> CategoryData:
    """The category with other images: links in MVTec AD's layout in the folder `root`, which is emptied first."""
    shutil.rmtree(root, ignore_errors=True)
    links = {root / "train" / "good" / name: path for name, path in train.items()}
    names = distinct_names([(image.defect, image.path.name) for image in test])
    for image, name in zip(test, names, strict=True):
        links[root / "test" / image.defect / name] = image.path
        if image.mask_path is not None:
            mask_name = f"{Path(name).stem}_mask{image.mask_path.suffix}"
            links[root / "ground_truth" / image.defect / mask_name] = image.mask_path
    for link, path in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return read_category(root, dataset=data.dataset, category=data.category)


def contamination_table(results: Sequence[ContaminationResult]) -> ResultTable:
    """Image AUROC of the three variants by seed, and their means."""

    def figures(of: Sequence[ContaminationResult]) -> list[str]:
        return [share(mean([one.measures[variant]["image_auroc"] for one in of])) for variant in VARIANTS]

    first = results[0]
    rows = [
        (
            str(result.seed),
            *figures([result]),
            f"{result.n_planted_removed} of {result.n_planted}, in {result.n_removed} removed",
        )
        for result in results
    ]
    if len(results) > 1:
        rows.append(("mean", *figures(results), ""))
    return ResultTable(
        title=f"Image AUROC with {first.n_planted} bad images in {first.n_planted + first.n_good} ({first.ratio:.0%})",
        columns=("seed", *VARIANTS, "bad images removed"),
        rows=tuple(rows),
    )
