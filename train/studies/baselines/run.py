"""PaDiM and PatchCore to compare with: on the same teacher's features, split, image size and test set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_repository.distance_fusion.map_fusion import fusion_matrix
from train.config import FitConfig
from train.data.bit_depth import find_bit_depth
from train.data.category import CategoryData, load_images, split_good
from train.data.ground_truth import load_masks
from train.errors import ConfigError, DataError
from train.evaluation.metrics import auroc
from train.evaluation.pixel_metrics import PixelScores
from train.fitting.features import compute_teacher_features
from train.method.student import load_teacher
from train.studies.baselines.padim import fit_padim, padim_maps
from train.studies.baselines.patchcore import fit_patchcore, patchcore_maps
from train.studies.baselines.results import BaselineResult, read_results, write_results
from train.support.arrays import FloatArray
from train.support.devices import Runtime
from train.support.progress import console

METHODS = ("padim", "patchcore")
SMOOTHING_SIGMA = 4.0  # pixels, in both papers


@dataclass(frozen=True)
class BaselineInputs:
    """The teacher's features of a category, [N, h, w, C] a stage, and the test set's ground truth.

    Attributes:
        good: of the images in train/good that can be read.
        test: of the test images.
        labels: [N_test], which of them show a defect.
        masks: [N_test, S, S], or None.
        image_size: S, pixels.
        seconds: of the teacher's pass over all images.
    """

    good: tuple[FloatArray, ...]
    test: tuple[FloatArray, ...]
    labels: NDArray[np.bool_]
    masks: NDArray[np.bool_] | None
    image_size: int
    seconds: float


def run_baselines(
    data: CategoryData,
    *,
    config: FitConfig,
    methods: Sequence[str],
    seeds: Sequence[int],
    run_dir: Path,
    runtime: Runtime,
    force: bool,
) -> list[BaselineResult]:
    """Measure each of some `METHODS` with each seed; each result is added to `run_dir`/baselines.json at once.

    The configuration gives teacher, image size and held-out share. What baselines.json already has is measured again
    only where it is forced.

    Returns:
        The results that were asked for, by method and seed.

    Raises:
        UserError: unknown methods, bad images or weights, or no test images.
    """
    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise ConfigError(f"Unknown method {unknown[0]!r}; expected some of {', '.join(METHODS)}.")
    if not data.test:
        raise DataError(f"{data.root} has no test images; put them into test/good/ and test/<defect>/.")
    path, setup = run_dir / "baselines.json", describe_setup(data, config)
    results = read_results(path)
    asked = [(method, seed) for method in methods for seed in seeds]
    if force:
        results = [r for r in results if r.setup != setup or (r.method, r.seed) not in asked]
    done = {(result.method, result.seed) for result in results if result.setup == setup}
    todo = [pair for pair in asked if pair not in done]
    if todo:
        run_dir.mkdir(parents=True, exist_ok=True)
        inputs = load_inputs(data, config=config, scratch_dir=run_dir, runtime=runtime)
    for method, seed in todo:
        console.print(f"{method}, seed {seed}")
        results.append(
            measure_baseline(
                method,
                inputs,
                seed=seed,
                holdout_ratio=config.holdout_ratio,
                setup=setup,
                device=runtime.torch_device,
            )
        )
        write_results(path, results)
    by_pair = {(result.method, result.seed): result for result in results if result.setup == setup}
    return [by_pair[pair] for pair in asked]


def describe_setup(data: CategoryData, config: FitConfig) -> dict[str, Any]:
    """What a result depends on besides method and seed."""
    return {
        "category": data.category,
        "dataset": data.dataset,
        "synthetic": data.synthetic,
        "data_fingerprint": data.fingerprint(),
        "test_fingerprint": data.test_fingerprint(),
        **config.model_dump(include={"teacher", "weights", "image_size", "bit_depth", "holdout_ratio"}),
    }


def load_inputs(
    data: CategoryData, *, config: FitConfig, scratch_dir: Path, runtime: Runtime
) -> BaselineInputs:
    """Read a category's images and run the teacher over them, once for all methods and seeds."""
    device = runtime.torch_device
    teacher, _ = load_teacher(config, weights_dir=runtime.weights_dir)
    teacher.to(device)
    reading = partial(
        load_images,
        image_size=config.image_size,
        strict=runtime.strict,
        bit_depth=find_bit_depth(data, asked=config.bit_depth),
    )
    good = reading(data.train_good, what="good images")
    test = reading([image.path for image in data.test], what="test images")
    readable = [data.test[index] for index in test.readable]
    started = time.perf_counter()
    features = [
        compute_teacher_features(teacher, images.pixels, scratch_dir=scratch_dir, device=device).stages
        for images in (good, test)
    ]
    return BaselineInputs(
        good=features[0],
        test=features[1],
        labels=np.array([image.anomalous for image in readable], bool),
        masks=load_masks(readable, image_size=config.image_size),
        image_size=config.image_size,
        seconds=time.perf_counter() - started,
    )


def measure_baseline(
    method: str,
    inputs: BaselineInputs,
    *,
    seed: int,
    holdout_ratio: float,
    setup: dict[str, Any],
    device: torch.device,
) -> BaselineResult:
    """Fit one method on the images that `train fit` would train on with this seed, and judge the test set."""
    train_indices, _ = split_good(len(inputs.good[0]), holdout_ratio=holdout_ratio, seed=seed)
    train = [stage[train_indices] for stage in inputs.good]
    started = time.perf_counter()
    if method == "padim":
        padim = fit_padim(train, seed=seed, device=device)
        fitted = time.perf_counter()
        anomaly_maps = upsample(padim_maps(padim, inputs.test), image_size=inputs.image_size)
        scores: FloatArray = anomaly_maps.max(axis=(1, 2))
    else:
        bank = fit_patchcore(train, seed=seed, device=device)
        fitted = time.perf_counter()
        maps, scores = patchcore_maps(bank, inputs.test)
        anomaly_maps = upsample(maps, image_size=inputs.image_size)
    tested = time.perf_counter()
    pixel = None
    if inputs.masks is not None:
        every = np.arange(len(anomaly_maps))
        pixel = PixelScores(anomaly_maps, inputs.masks, good=every[:0]).measure(every)
    return BaselineResult(
        method=method,
        seed=seed,
        setup=setup,
        image_auroc=auroc(scores, inputs.labels),
        pixel_auroc=pixel.auroc if pixel else None,
        pro=pixel.pro if pixel else None,
        n_train=len(train_indices),
        n_test=len(inputs.labels),
        seconds_features=round(inputs.seconds, 1),
        seconds_fit=round(fitted - started, 1),
        seconds_test=round(tested - fitted, 1),
    )


def upsample(maps: FloatArray, *, image_size: int) -> FloatArray:
    """Distance maps [N, h, h] to anomaly maps [N, S, S]: bilinear, then a Gaussian blur."""
    matrix = fusion_matrix(maps.shape[-1], target=image_size, sigma=SMOOTHING_SIGMA, window=1)
    half_done: FloatArray = maps @ matrix.T
    anomaly_maps: FloatArray = matrix @ half_done
    return anomaly_maps
