"""anomalib's PaDiM and PatchCore to compare with: on the same teacher, split, image size, smoothing and test set."""

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

from train.config import FitConfig, refuse_native
from train.data.bit_depth import find_bit_depth
from train.data.category import CategoryData, split_good
from train.data.ground_truth import load_masks
from train.data.pictures.loading import load_images
from train.data.shapes import keeps_aspect
from train.errors import ConfigError, DataError
from train.evaluation.breakdown import GroundTruth, unavailable
from train.evaluation.metrics import auroc
from train.method.backbones import Backbone
from train.method.student import load_teacher
from train.studies.baselines.anomalib_models import (
    CORESET_RATIO,
    METHODS,
    anomalib_version,
    fit_anomalib,
    judge_with_anomalib,
)
from train.studies.baselines.results import BaselineResult, read_results, write_results
from train.support.devices import Runtime
from train.support.progress import console


@dataclass(frozen=True)
class BaselineInputs:
    """What every method is fitted on and measured with.

    Attributes:
        teacher: on the device, in evaluation mode.
        good: [N, H, W, 3] uint8, the images in train/good that can be read.
        test: [M, H, W, 3] uint8, the test images that can be read.
        truth: of those.
    """

    teacher: Backbone
    good: NDArray[np.uint8]
    test: NDArray[np.uint8]
    truth: GroundTruth


def run_baselines(
    data: CategoryData,
    *,
    config: FitConfig,
    methods: Sequence[str],
    seeds: Sequence[int],
    run_dir: Path,
    runtime: Runtime,
    force: bool,
    coreset_ratio: float = CORESET_RATIO,
) -> list[BaselineResult]:
    """Measure each of some `METHODS` with each seed; each result is added to `run_dir`/baselines.json at once.

    The configuration gives teacher, image size, held-out share and smoothing. PatchCore keeps the share
    `coreset_ratio` of the patches. What baselines.json already has is measured again only where it is forced.

    Returns:
        The results that were asked for, by method and seed.

    Raises:
        UserError: unknown methods, no anomalib, bad images or weights, or no test images.
    """
    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise ConfigError(f"Unknown method {unknown[0]!r}; expected some of {', '.join(METHODS)}.")
    if not data.test:
        raise DataError(f"{data.root} has no test images; put them into test/good/ and test/<defect>/.")
    path, setup = run_dir / "baselines.json", describe_setup(data, config, coreset_ratio)
    results = read_results(path)
    asked = [(method, seed) for method in methods for seed in seeds]
    if force:
        results = [r for r in results if r.setup != setup or (r.method, r.seed) not in asked]
    done = {(result.method, result.seed) for result in results if result.setup == setup}
    todo = [pair for pair in asked if pair not in done]
    if todo:
        run_dir.mkdir(parents=True, exist_ok=True)
        inputs = load_inputs(data, config=config, runtime=runtime)
        for sentence in unavailable(inputs.truth):
            console.print(sentence, style="yellow", markup=False)
    for method, seed in todo:
        console.print(f"{method}, seed {seed}")
        results.append(
            measure_baseline(
                method, inputs, config=config, seed=seed, setup=setup, device=runtime.torch_device
            )
        )
        write_results(path, results)
    by_pair = {(result.method, result.seed): result for result in results if result.setup == setup}
    return [by_pair[pair] for pair in asked]


def describe_setup(data: CategoryData, config: FitConfig, coreset_ratio: float) -> dict[str, Any]:
    """What a result depends on besides method and seed."""
    keep_aspect = keeps_aspect(data, asked=config.aspect, size=config.image_size, quiet=True)
    return {
        "category": data.category,
        "dataset": data.dataset,
        "synthetic": data.synthetic,
        "data_fingerprint": data.fingerprint(),
        "test_fingerprint": data.test_fingerprint(),
        "anomalib": anomalib_version(),
        "coreset_ratio": coreset_ratio,
        **config.model_dump(
            mode="json",  # as it is read back
            include={
                "teacher",
                "weights",
                "image_size",
                "bit_depth",
                "holdout_ratio",
                "smoothing_sigma",
                "pool_size",
            },
        ),
        **({"aspect": "keep"} if keep_aspect else {}),
    }


def load_inputs(data: CategoryData, *, config: FitConfig, runtime: Runtime) -> BaselineInputs:
    """Read a category's images, masks and teacher, once for all methods and seeds.

    Raises:
        ConfigError: pictures are to keep their own size.
    """
    refuse_native(config, "The comparison with other methods")
    teacher, _ = load_teacher(config, weights_dir=runtime.weights_dir)
    keep_aspect = keeps_aspect(data, asked=config.aspect, size=config.image_size)
    reading = partial(
        load_images,
        image_size=config.image_size,
        strict=runtime.strict,
        bit_depth=find_bit_depth(data, asked=config.bit_depth),
        keep_aspect=keep_aspect,
    )
    good = reading(data.train_good, what="good images")
    test = reading([image.path for image in data.test], what="test images")
    readable = tuple(data.test[index] for index in test.readable)
    return BaselineInputs(
        teacher=teacher.to(runtime.torch_device),
        good=good.pixels,
        test=test.pixels,
        truth=GroundTruth(
            readable,
            load_masks(readable, image_size=config.image_size, keep_aspect=keep_aspect),
            test.shown,
        ),
    )


def measure_baseline(
    method: str,
    inputs: BaselineInputs,
    *,
    config: FitConfig,
    seed: int,
    setup: dict[str, Any],
    device: torch.device,
) -> BaselineResult:
    """Fit one method on the images that `train fit` would train on with this seed, and judge the test set."""
    train_indices, _ = split_good(len(inputs.good), holdout_ratio=config.holdout_ratio, seed=seed)
    started = time.perf_counter()
    model = fit_anomalib(
        method,
        inputs.teacher,
        inputs.good[train_indices],
        config=config,
        seed=seed,
        device=device,
        coreset_ratio=setup["coreset_ratio"],
    )
    fitted = time.perf_counter()
    anomaly_maps, scores = judge_with_anomalib(model, inputs.test, device=device)
    tested = time.perf_counter()
    truth = inputs.truth
    pixel = truth.measure_pixels(truth.pixel_scores(anomaly_maps), np.flatnonzero(truth.labels))
    return BaselineResult(
        method=method,
        seed=seed,
        setup=setup,
        image_auroc=auroc(scores, truth.labels),
        pixel_auroc=pixel.auroc if pixel else None,
        pro=pixel.pro if pixel else None,
        n_train=len(train_indices),
        n_test=len(truth.labels),
        seconds_fit=round(fitted - started, 1),
        seconds_test=round(tested - fitted, 1),
    )
