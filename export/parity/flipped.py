"""Pictures of the images that a judge labels otherwise than PyTorch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from export.parity.answers import Answers
from export.parity.judges import JudgedTestSet
from model_repository.distance_fusion.map_fusion import finite_images
from train.support.files import replacing

MAP_PIXELS = 256  # side of each picture of a flipped image


def write_flipped(judged: JudgedTestSet, answers: Answers, folder: Path) -> list[Path]:
    """Write each image whose label differs from PyTorch's to `folder`, beside PyTorch's map and the judge's.

    Nothing is written of a judge that could not judge an image.
    """
    if not finite_images([answers.maps]).all():
        return []
    ours, (theirs, _) = judged.verdict_of(answers), judged.expected
    flipped = np.flatnonzero(ours.pred_label[:, 0] != theirs.pred_label[:, 0])
    top = 2 * max(judged.calibration.image_threshold, 1e-12)
    written = []
    for index in flipped:
        panels = [judged.sent[index]] + [
            (255 * colormaps["inferno"](verdict.anomaly_map[index] / top)[..., :3]).astype(np.uint8)
            for verdict in (theirs, ours)
        ]
        picture = Image.fromarray(np.concatenate(panels, axis=1))
        picture = picture.resize((3 * MAP_PIXELS, MAP_PIXELS), Image.Resampling.BILINEAR)
        image = judged.test[index]
        scores = f"{theirs.pred_score[index, 0]:.4f}_{ours.pred_score[index, 0]:.4f}"
        written.append(folder / f"{image.defect}_{image.path.stem}_{scores}.png")
        with replacing(written[-1]) as temporary:
            picture.save(temporary, format="PNG")
    return written
