"""One measurement a method, category and seed; those of an earlier run are read."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from train.config import FitConfig, fit_config
from train.data.category import CategoryData, split_good
from train.errors import DataError, UserError
from train.evaluation import METRICS_FORMAT
from train.studies.ablation.run import RunSettings, measured_run
from train.studies.baselines.anomalib_models import CORESET_RATIO
from train.studies.baselines.anomalib_models import METHODS as PEERS
from train.studies.baselines.run import run_baselines
from train.support.devices import Runtime
from train.support.files import read_json, write_json
from train.support.progress import console

PRESET = "edge"
# The peers at their best: fitted on all good images but one, for one at least is held out, and smoothed as their papers
# do. What the teacher sees is the preset's.
PEERS_OWN: Mapping[str, Any] = {"holdout_ratio": 1e-6, "smoothing_sigma": 4.0, "pool_size": 1}
FEW_IMAGES_CORESET_RATIO = 0.1
SHARED_FIELDS = ("teacher", "weights", "image_size", "bit_depth")
CODE_FILE = "code.json"
ROOT = Path(__file__).parents[3]
DECIDING_CODE = (
    "train/config", "train/data", "train/method", "train/fitting", "train/calibration", "train/evaluation",
    "model_repository/distance_fusion/map_fusion.py", "model_repository/distance_fusion/fusion_calibration.py",
    "model_repository/distance_fusion/fusion_matrices.py",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What became of one method, category and seed.

    Attributes:
        dataset: see `CategoryData`.
        category: the product's name.
        method: `edge`, `padim` or `patchcore`.
        seed: of the images that are drawn, of the split and of all that the method draws.
        image_auroc: 0 to 1, None where the test set has one class or nothing was measured.
        pixel_auroc: 0 to 1, None without masks.
        pro: 0 to 1, None without masks.
        seconds: of training or fitting.
        n_train: good images it was trained or fitted on.
        batch_size: of `edge`, which takes fewer images a step where there are not enough.
        code: `Study.code` of when the training of `edge` began.
        fault: in one sentence why nothing was measured; None where it was.
    """

    dataset: str
    category: str
    method: str
    seed: int
    image_auroc: float | None = None
    pixel_auroc: float | None = None
    pro: float | None = None
    seconds: float | None = None
    n_train: int | None = None
    batch_size: int | None = None
    code: str | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Study:
    """What is measured on every category.

    Attributes:
        overrides: fields of `edge` that are changed.
        seeds: one measurement of each.
        n_images: good images, drawn by the seed; None for all.
        peers: whether PaDiM and PatchCore are measured too.
        runs_dir: takes the measurements, under `<category>/`.
        runtime: where and how to train.
        code: `code_fingerprint()` of when the program started.
        renew: whether `edge` is trained anew where its result is from before the code changed.
    """

    overrides: Mapping[str, Any]
    seeds: tuple[int, ...]
    n_images: int | None
    peers: bool
    runs_dir: Path
    runtime: Runtime
    code: str
    renew: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        """`edge`, and its peers where they are asked for."""
        return (PRESET, *(PEERS if self.peers else ()))

    @property
    def coreset_ratio(self) -> float:
        """The share of patches that PatchCore keeps: of few images anomalib's own share, for 1 % is too few."""
        return CORESET_RATIO if self.n_images is None else FEW_IMAGES_CORESET_RATIO

    @property
    def peers_config(self) -> FitConfig:
        """What the peers are fitted and smoothed with."""
        shared = {name: value for name, value in self.overrides.items() if name in SHARED_FIELDS}
        return fit_config(PRESET, {**shared, **PEERS_OWN})

    def edge_config(self, seed: int) -> FitConfig:
        """The preset with what is changed.

        Raises:
            ConfigError: fields that are unknown or out of range.
        """
        return fit_config(PRESET, {**self.overrides, "seed": seed})

    def folder(self, category: str, seed: int) -> Path:
        """Where measurements of these images lie, whatever the configuration."""
        images = "all-images" if self.n_images is None else f"{self.n_images}-images"
        return self.runs_dir / category / images / f"seed-{seed}"


def measure_category(data: CategoryData, study: Study) -> Iterator[Measured]:
    """Measure all methods with all seeds; each measurement is stored as soon as it is there.

    A fault that a user can mend becomes a measurement without figures, so that the others go on.
    """
    for seed in study.seeds:
        for method in study.methods:
            console.print(f"{data.dataset}/{data.category}, seed {seed}, {method}", style="bold")
            try:
                measured = _measure(method, data, study, seed=seed)
            except UserError as error:
                console.print(error.message, style="red", markup=False)
                measured = Measured(data.dataset, data.category, method, seed, fault=error.message)
            yield measured


def draw_good(data: CategoryData, *, n_images: int | None, seed: int) -> CategoryData:
    """The category with some of its good images: of one seed, 20 images are the 10 and 10 more. None for all.

    Raises:
        DataError: there are fewer.
    """
    if n_images is None:
        return data
    n_good = len(data.train_good)
    if n_images > n_good:
        raise DataError(
            f"Category {data.category!r} has {n_good} good images; expected at least the {n_images} that are to be "
            "drawn; lower --images."
        )
    drawn = np.random.default_rng(seed).permutation(n_good)[:n_images]
    return replace(data, train_good=tuple(data.train_good[index] for index in sorted(drawn)))


def code_fingerprint() -> str:
    """SHA-256 over the code that decides what `edge` gives, without its comments and its layout, in hexadecimal."""
    digest = hashlib.sha256()
    for place in DECIDING_CODE:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(f"{file.relative_to(ROOT)}\n".encode())
            digest.update(ast.dump(ast.parse(file.read_bytes())).encode())
    return digest.hexdigest()


def _measure(method: str, data: CategoryData, study: Study, *, seed: int) -> Measured:
    drawn, folder = draw_good(data, n_images=study.n_images, seed=seed), study.folder(data.category, seed)
    if method == PRESET:
        return _measure_edge(drawn, study, seed=seed, folder=folder)
    return _measure_peer(method, drawn, study, seed=seed, folder=folder)


def _measure_edge(data: CategoryData, study: Study, *, seed: int, folder: Path) -> Measured:
    config = study.edge_config(seed)
    trained_on, _ = split_good(len(data.train_good), holdout_ratio=config.holdout_ratio, seed=seed)
    config = config.model_copy(update={"batch_size": min(config.batch_size, len(trained_on))})
    run_dir = folder / f"{PRESET}-{_digest(data, config)}"
    code = _code_of(run_dir)
    if code is None or (study.renew and code != study.code):
        shutil.rmtree(run_dir, ignore_errors=True)
        write_json(run_dir / CODE_FILE, {"code": study.code})
    settings = RunSettings(config, (seed,), study.runs_dir, study.runtime, keep_checkpoints=False)
    metrics = measured_run(data, config=config, run_dir=run_dir, settings=settings)
    return Measured(
        data.dataset,
        data.category,
        PRESET,
        seed,
        image_auroc=metrics["image_auroc"],
        pixel_auroc=metrics["pixel_auroc"],
        pro=metrics["pro"],
        seconds=metrics["seconds_train"],
        n_train=metrics["n_train"],
        batch_size=config.batch_size,
        code=_code_of(run_dir),
    )


def _digest(data: CategoryData, config: FitConfig) -> str:
    """A short name of all that a result is made of besides the code."""
    made_of = {
        "config": config.model_dump(mode="json"),
        "data_fingerprint": data.fingerprint(),
        "test_fingerprint": data.test_fingerprint(),
        "format": METRICS_FORMAT,
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]


def _code_of(run_dir: Path) -> str | None:
    """`Study.code` of when a run was begun; None where none was."""
    stored = read_json(run_dir / CODE_FILE)
    return stored.get("code") if isinstance(stored, dict) else None


def _measure_peer(method: str, data: CategoryData, study: Study, *, seed: int, folder: Path) -> Measured:
    (result,) = run_baselines(
        data,
        config=study.peers_config,
        methods=(method,),
        seeds=(seed,),
        run_dir=folder,
        runtime=study.runtime,
        force=False,
        coreset_ratio=study.coreset_ratio,
    )
    return Measured(
        data.dataset,
        data.category,
        method,
        seed,
        image_auroc=result.image_auroc,
        pixel_auroc=result.pixel_auroc,
        pro=result.pro,
        seconds=result.seconds_fit,
        n_train=result.n_train,
    )
