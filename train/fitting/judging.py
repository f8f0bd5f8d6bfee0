"""From trained networks to a judge: calibrated as was asked, or by known defects; after a training, or again later."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_repository.alignment.reference_picture import Reference
from train.calibration.foreground import ForegroundFinder, load_foreground
from train.calibration.recalibration import read_good_images
from train.calibration.thresholds import Calibrated, calibrate
from train.checkpoint.known_defects import ChosenByKnownDefects, KnownDefectsOrigin
from train.checkpoint.provenance import Provenance
from train.checkpoint.tensors import Checkpoint
from train.config import FitConfig
from train.data.category import CategoryData
from train.data.known_defects import KnownDefects
from train.fitting.known_defects import DefectImages, Networks, calibrate_by, read_defects, write_figures
from train.method.backbones import Backbone
from train.method.student import Student
from train.support.devices import Runtime


class Judging(NamedTuple):
    """How a run judges: its configuration, with what known defects chose, the calibration and the foreground."""

    config: FitConfig
    calibrated: Calibrated
    finder: ForegroundFinder
    known_defects: ChosenByKnownDefects | None = None

    def checkpoint(
        self, provenance: Provenance, teacher: Backbone, student: Student, reference: Reference | None
    ) -> Checkpoint:
        """That of trained networks which it judges with, and of what pictures are aligned to."""
        return Checkpoint(self.config, provenance, self.calibrated.calibration, teacher, student, reference)


def calibrate_run(
    networks: Networks,
    held_out: NDArray[np.uint8],
    defects: DefectImages | None,
    *,
    config: FitConfig,
    category: str,
    finder: ForegroundFinder,
    run_dir: Path,
    shown: NDArray[np.bool_] | None,
) -> Judging:
    """Calibrate trained networks on held-out good images [N, H, W, 3] uint8; for `shown` see `calibrate`.

    Known defects, where there are any, choose in place of the configuration; known_defects.json is written then.
    """
    if defects is None:
        teacher, student, device = networks
        calibrated = calibrate(
            teacher,
            student,
            held_out,
            config=config,
            category=category,
            finder=finder,
            device=device,
            shown=shown,
        )
        return Judging(config, calibrated, finder)
    chosen = calibrate_by(
        defects, networks, held_out, config=config, category=category, finder=finder, shown=shown
    )
    remembered = write_figures(run_dir, chosen, asked=config, known=defects.known)
    return Judging(chosen.config, chosen.calibrated, chosen.finder, remembered)


def calibrate_again(
    checkpoint: Checkpoint,
    data: CategoryData,
    known: KnownDefects | None,
    *,
    asked: FitConfig,
    runtime: Runtime,
    what: str = "another choice by known defects",
) -> tuple[Checkpoint, dict[str, Any] | None]:
    """A finished run's checkpoint by known defects and regions, or without either; nothing is trained or written.

    Args:
        checkpoint: it stays as it is.
        data: the images that it was trained on.
        known: by which is chosen; None for as it was asked for.
        asked: its configuration without what known defects chose, with the regions that are asked for.
        runtime: where to compute.
        what: needs other thresholds, for messages.

    Returns:
        The checkpoint, and the content of known_defects.json; None where there are none.

    Raises:
        DataError: other images than those that it was trained on, or known defects that cannot be used.
    """
    good = read_good_images(checkpoint, data, runtime=runtime, what=what)
    device, category = runtime.torch_device, data.category
    networks = Networks(checkpoint.teacher.to(device), checkpoint.student.to(device), device)
    finder = load_foreground(asked.foreground, weights_dir=runtime.weights_dir)
    held_out, shown = good.pixels[good.held_out], good.held_out_shown
    history = checkpoint.provenance
    if known is None:
        calibrated = calibrate(
            *networks[:2],
            held_out,
            config=asked,
            category=category,
            finder=finder,
            device=device,
            shown=shown,
        )
        return _with(checkpoint, Judging(asked, calibrated, finder)), None
    defects = read_defects(
        known,
        [(good.pixels, good.paths)],
        config=asked,
        bit_depth=history.bit_depth,
        keep_aspect=history.keep_aspect,
        category=category,
        strict=runtime.strict,
        reference=checkpoint.reference,
    )
    chosen = calibrate_by(
        defects, networks, held_out, config=asked, category=category, finder=finder, shown=shown
    )
    origin = KnownDefectsOrigin.of(known)
    remembered = chosen.remembered(asked, origin)
    judging = Judging(chosen.config, chosen.calibrated, chosen.finder, remembered)
    return _with(checkpoint, judging), chosen.content(origin)


def _with(checkpoint: Checkpoint, judging: Judging) -> Checkpoint:
    history = checkpoint.provenance
    networks = {name: source for name, source in history.weights.items() if name != "foreground"}
    provenance = history.model_copy(
        update={
            "weights": networks | judging.finder.sources,
            "usual_scores": judging.calibrated.usual,
            "known_defects": judging.known_defects,
        }
    )
    return judging.checkpoint(provenance, checkpoint.teacher, checkpoint.student, checkpoint.reference)
