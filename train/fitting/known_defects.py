"""Known defects beside a run's images: read before the training, judged after it, and choosing then."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model_repository.alignment.reference_picture import Reference
from model_repository.distance_fusion.fusion_regions import inspected_pixels
from model_repository.distance_fusion.fusion_shown import hide_beside, within_picture
from model_repository.image_size import image_size
from train.calibration.foreground import ForegroundFinder, find_foreground
from train.calibration.known_defects.figures import Figures
from train.calibration.known_defects.judging import Bench
from train.calibration.known_defects.settings import settings_to_try
from train.calibration.known_defects.study import DefectFile, study_known_defects
from train.calibration.known_defects.tables import Images, score_tables
from train.calibration.thresholds import (
    WITHOUT_NETWORK,
    Calibrated,
    HeldOut,
    image_threshold,
    look_at,
    require_something_left,
    something_left,
)
from train.calibration.usual import usual_scores
from train.checkpoint.known_defects import (
    FIGURES_FILE,
    ChosenByKnownDefects,
    FusionSetting,
    KnownDefectsOrigin,
)
from train.config import FitConfig
from train.data.category import TestImage
from train.data.ground_truth import load_masks
from train.data.known_defects import KnownDefects, load_known_defects, require_other_pixels
from train.method.backbones import Backbone
from train.method.judging import compute_distances
from train.method.student import Student
from train.support.files import json_text, readable_text, sha256_of, write_json
from train.support.progress import console

SEEN = 0.99  # mean share of the pictures; a part that fills more leaves no background to remove


@dataclass(frozen=True)
class DefectImages:
    """Known defects in memory.

    Attributes:
        known: their folder.
        images: the M of them that could be read, each once.
        pixels: [M, H, W, 3] uint8.
        masks: [M, H, W] bool; None where none has one.
        shown: [M, H, W] bool, see `LoadedImages`.
    """

    known: KnownDefects
    images: tuple[TestImage, ...]
    pixels: NDArray[np.uint8]
    masks: NDArray[np.bool_] | None
    shown: NDArray[np.bool_] | None = None

    def files(self) -> list[DefectFile]:
        """Which they are."""
        return [
            DefectFile(
                file=readable_text(image.path.relative_to(self.known.root)),
                kind=image.defect,
                sha256=sha256_of(image.path),
            )
            for image in self.images
        ]


class Networks(NamedTuple):
    """A teacher and its trained student, on the device."""

    teacher: Backbone
    student: Student
    device: torch.device


class Chosen(NamedTuple):
    """What a run has by known defects.

    Attributes:
        config: with the chosen setting in place of the one that was asked for.
        calibrated: thresholds of it.
        finder: of its foreground.
        figures: what changed.
    """

    config: FitConfig
    calibrated: Calibrated
    finder: ForegroundFinder
    figures: Figures

    def content(self, origin: KnownDefectsOrigin) -> dict[str, Any]:
        """That of known_defects.json."""
        return {"origin": origin.model_dump(), **self.figures.content()}

    def remembered(self, asked: FitConfig, origin: KnownDefectsOrigin) -> ChosenByKnownDefects:
        """What the checkpoint says of it."""
        text = json_text(self.content(origin))
        return ChosenByKnownDefects(
            origin=origin,
            asked=FusionSetting.of(asked),
            chosen=self.figures.after.setting,
            figures_sha256=hashlib.sha256(text.encode()).hexdigest(),
        )


def read_defects(
    known: KnownDefects,
    good: Sequence[tuple[NDArray[np.uint8], Sequence[Path]]],
    *,
    config: FitConfig,
    bit_depth: int,
    keep_aspect: bool,
    category: str,
    strict: bool,
    reference: Reference | None = None,
) -> DefectImages:
    """Read known defects, and make sure that none has the pixels of a good image; `good` are these and their paths.

    Raises:
        DataError: see `load_known_defects`, `require_other_pixels` and `load_masks`.
    """
    loaded = load_known_defects(
        known,
        image_size=config.image_size,
        strict=strict,
        bit_depth=bit_depth,
        keep_aspect=keep_aspect,
        category=category,
        reference=reference,
    )
    images = [known.images[index] for index in loaded.readable]
    for pixels, paths in good:
        require_other_pixels(images, loaded.pixels, good=pixels, good_paths=paths)
    first: dict[bytes, int] = {}
    for index, one in enumerate(loaded.pixels):
        first.setdefault(hashlib.sha256(one.tobytes()).digest(), index)
    once = sorted(first.values())
    if len(once) < len(images):
        console.print(
            f"{len(images) - len(once)} of {len(images)} known defects have the pixels of another; each is counted "
            "once.",
            style="yellow",
        )
    kept = tuple(images[index] for index in once)
    masks = load_masks(
        kept,
        image_size=image_size(*loaded.pixels.shape[1:3]),
        keep_aspect=keep_aspect,
        native=config.is_native,
    )
    if masks is not None and loaded.sent is not None:
        from model_repository.alignment.picture_alignment import move_masks  # it loads OpenCV

        masks = move_masks(masks, loaded.sent.motions[once])
    shown = None if loaded.shown is None else loaded.shown[once]
    return DefectImages(known, kept, loaded.pixels[once], masks, shown)


def calibrate_by(
    defects: DefectImages,
    networks: Networks,
    held_out: NDArray[np.uint8],
    *,
    config: FitConfig,
    category: str,
    finder: ForegroundFinder,
    shown: NDArray[np.bool_] | None,
) -> Chosen:
    """Choose by known defects how distance maps become scores, and fit thresholds on held-out good images alone.

    Args:
        defects: by which is chosen.
        networks: trained; they stay as they are.
        held_out: [N, H, W, 3] uint8.
        config: the setting that is asked for, and the rates that are promised.
        category: the product's name.
        finder: of the foreground that is asked for.
        shown: of the held-out images, see `look_at`.
    """
    seen, bench, bad, finders = _set_up(
        defects, networks, held_out, config=config, category=category, finder=finder, shown=shown
    )
    masks = defects.masks
    if masks is not None and seen.regions is not None:  # what is ignored of a defect is not to be marked
        masks = masks & inspected_pixels(seen.regions, masks.shape[1:])
    judge, figures = study_known_defects(bench, bad, masks, defects.files())
    image_threshold(judge.good_scores, config.false_reject_rate)  # tells where there are too few for the rate
    calibration = judge.calibration
    usual = usual_scores(seen.distances, calibration, bench.good.foregrounds[judge.setting.foreground])
    tell(figures)
    return Chosen(
        config=judge.setting.applied_to(config),
        calibrated=Calibrated(calibration, usual),
        finder=finders[judge.setting.foreground],
        figures=figures,
    )


def _set_up(
    defects: DefectImages,
    networks: Networks,
    held_out: NDArray[np.uint8],
    *,
    config: FitConfig,
    category: str,
    finder: ForegroundFinder,
    shown: NDArray[np.bool_] | None,
) -> tuple[HeldOut, Bench, Images, dict[str, ForegroundFinder]]:
    """All that `calibrate_by` chooses from: what the networks see, and by which foregrounds."""
    teacher, student, device = networks
    seen = look_at(teacher, student, held_out, config=config, finder=finder, device=device, shown=shown)
    finders = {finder.method: finder, "none": ForegroundFinder("none")}
    without_background = {finder.method: seen.foreground, "none": shown}
    parts = {finder.method: seen.parts, "none": seen.parts}
    if finder.method == "sam":  # the part of `none` is looked for without a network
        parts["none"] = within_picture(find_foreground(held_out, WITHOUT_NETWORK, device=device), shown)
    elif seen.parts is not None and seen.parts.mean() < SEEN:
        finders["threshold"] = WITHOUT_NETWORK
        without_background["threshold"] = parts["threshold"] = seen.parts
    picture_only = shown is not None
    good = Images(seen.distances, without_background, seen.regions, picture_only)
    scale = config.distance_scale
    distances = compute_distances(
        teacher, student, defects.pixels, scale=scale, device=device, what="Known defects"
    )
    foregrounds = {
        method: within_picture(find_foreground(defects.pixels, own, device=device), defects.shown)
        for method, own in finders.items()
    }
    require_something_left(foregrounds[finder.method], seen.regions, what="known defects")
    for method in [method for method in finders if method != finder.method]:  # no way that leaves nothing
        masks = (without_background[method], foregrounds[method])
        if not all(something_left(mask, seen.regions).all() for mask in masks):
            del finders[method], without_background[method], foregrounds[method]
    bad = Images(hide_beside(distances, defects.shown), foregrounds, seen.regions, picture_only)
    settings = settings_to_try(
        FusionSetting.of(config),
        foregrounds=tuple(finders),
        with_pasted=seen.pasted is not None,
        largest_sigma=min(held_out.shape[1:3]) / 2,
    )
    bench = Bench(
        settings=settings,
        tables=score_tables(good, seen.pasted, bad, settings=settings, config=config),
        good=good,
        parts=parts,
        config=config,
        category=category,
        foreground_ids={method: own.id for method, own in finders.items()},
    )
    return seen, bench, bad, finders


def write_figures(
    run_dir: Path, chosen: Chosen, *, asked: FitConfig, known: KnownDefects
) -> ChosenByKnownDefects:
    """Write known_defects.json into a run's folder; what the checkpoint says of it."""
    origin = KnownDefectsOrigin.of(known)
    write_json(run_dir / FIGURES_FILE, chosen.content(origin))
    return chosen.remembered(asked, origin)


def tell(figures: Figures) -> None:
    """Print what known defects changed."""
    count, before, after = len(figures.defects), figures.before, figures.after
    console.print(figures.why, markup=False)
    if figures.changed:
        told = (
            f"{before.n_escapes} of {count} known defects escaped, {after.n_escapes} do by what the others chose; "
            f"AUROC {before.auroc:.4f} to {after.auroc:.4f}."
        )
    else:
        told = f"{before.n_escapes} of {count} known defects escape; AUROC {before.auroc:.4f}."
    console.print(told, markup=False)
