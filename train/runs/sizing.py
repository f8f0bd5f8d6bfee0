"""`--image-size auto`: the size that a run is trained at, proposed once for a category's images and told with why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_repository.image_decoder.picture_limits import SMALLEST_OWN_SIDE
from model_repository.image_size import ImageSize, image_size, n_pixels, size_text
from train.config import FitConfig, fit_config
from train.data.category import CategoryData, TestImage
from train.data.defect_sizes import defect_sizes
from train.data.known_defects import KnownDefects
from train.data.shapes import ImageShape, keeps_aspect, read_shapes
from train.data.size_proposal import MEGA, Limits, propose_size
from train.errors import ConfigError, DataError
from train.runs.folder import RunFolder
from train.runs.record import RunRecord
from train.support.devices import Runtime
from train.support.progress import console

AUTO = "auto"
TIMED_SIZE = image_size(256, 256)
TIMED_RUNS = 7


def with_image_size(
    overrides: Mapping[str, Any],
    data: CategoryData,
    *,
    preset: str | None,
    ms_per_image: float | None,
    run_dir: Path,
    runtime: Runtime,
    force: bool,
    known: KnownDefects | None = None,
) -> Mapping[str, Any]:
    """The options of a run, with an image size in place of `auto`.

    A run of these images keeps the size that it has, finished or not, unless forced: times differ from one measurement
    to the next, and with another size it would be another run.

    Args:
        overrides: fields of `FitConfig` that were asked for.
        data: the category's images.
        preset: None means `edge`.
        ms_per_image: that an image may take, milliseconds; None for any time.
        run_dir: of the category.
        runtime: where the networks are timed.
        force: propose a size even where a run has one.
        known: defects whose masks count beside those of the test set.

    Raises:
        ConfigError: other options cannot be used, or a time is given without `auto`.
        DataError: no image can be read.
    """
    if overrides.get("image_size") != AUTO:
        if ms_per_image is not None:
            raise ConfigError(
                "--ms-per-image bounds the size that --image-size auto proposes; give --image-size auto, or leave it "
                "out."
            )
        return overrides
    others = {name: value for name, value in overrides.items() if name != "image_size"}
    config = fit_config(preset or "edge", others)
    kept = None if force else _size_of_run(RunFolder(run_dir), data)
    if kept is not None:
        console.print(
            f"Image size {size_text(kept)}, that of the run of these images in {run_dir}; --force proposes one anew.",
            markup=False,
        )
        return {**others, "image_size": kept}
    masked = [*data.test, *(() if known is None else known.images)]
    # Those of a preset go where pictures keep their own size, and those that are asked for do not.
    may_keep_own = not others.get("common_factors")
    size = _propose(
        data, masked, config, ms_per_image=ms_per_image, may_keep_own=may_keep_own, runtime=runtime
    )
    return {**others, "image_size": size}


def _size_of_run(run: RunFolder, data: CategoryData) -> ImageSize | None:
    header, begun = run.finished(), run.begun()
    records = [RunRecord.of_checkpoint(header)] if header is not None else []
    for record in [*records, *([begun] if begun is not None else [])]:
        if record.origin.data_fingerprint == data.fingerprint():
            return record.config.image_size
    return None


def _propose(
    data: CategoryData,
    masked: Sequence[TestImage],
    config: FitConfig,
    *,
    ms_per_image: float | None,
    may_keep_own: bool,
    runtime: Runtime,
) -> ImageSize:
    shapes = read_shapes(data.train_good)
    if not shapes:
        raise DataError(
            f"None of the {len(data.train_good)} good images of {data.category!r} can be read, so that no image size "
            "can be proposed; mend them, or give --image-size."
        )
    limits = Limits(
        n_pixels=_most_pixels(config),
        ms_per_image=ms_per_image,
        ms_per_megapixel=None if ms_per_image is None else _ms_per_megapixel(config, runtime),
    )
    proposal = propose_size(
        shapes,
        defect_sizes(masked),
        usual=config.image_size,
        keep_aspect=keeps_aspect(data, asked=config.aspect, size=config.image_size, quiet=True),
        limits=limits,
        may_keep_own=may_keep_own and _may_keep_own(shapes, config),
    )
    console.print(f"Image size {size_text(proposal.size)}: {'; '.join(proposal.reasons)}.", markup=False)
    for sentence in proposal.warnings:
        console.print(f"Warning: {sentence}.", style="yellow", markup=False)
    return proposal.size


def _may_keep_own(shapes: Sequence[ImageShape], config: FitConfig) -> bool:
    """Whether pictures may keep their own size: all have the same, and nothing is asked for that takes another."""
    sizes = {(shape.width, shape.height) for shape in shapes}
    large_enough = len(sizes) == 1 and min(*sizes.pop()) >= SMALLEST_OWN_SIDE
    return large_enough and config.align == "off" and config.foreground != "sam"


def _most_pixels(config: FitConfig) -> int | None:
    """Pixels of the largest image that the configuration's distance has statistics for."""
    if config.distance != "mahalanobis":
        return None
    from train.method.residuals import most_pixels
    from train.method.student import teacher_channels

    return most_pixels(teacher_channels(config))


def _ms_per_megapixel(config: FitConfig, runtime: Runtime) -> float:
    """Of teacher and student, timed with the weights of nobody."""
    from train.method.timing import time_pair

    timed = config.model_copy(update={"image_size": TIMED_SIZE})
    with console.status("Timing the networks"):
        _, pair_ms = time_pair(timed, device=runtime.torch_device, repeats=TIMED_RUNS)
    return pair_ms * MEGA / n_pixels(TIMED_SIZE)
