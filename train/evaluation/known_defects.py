"""What known defects changed, for metrics.json and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_repository.distance_fusion.fusion_regions import inspected_pixels
from model_repository.distance_fusion.fusion_shown import within_picture
from model_repository.distance_fusion.map_fusion import remove_background
from model_repository.image_size import parse_size, size_text
from train.calibration.foreground import ForegroundFinder, find_foreground
from train.checkpoint.tensors import Checkpoint
from train.data.category import TestImage
from train.data.pictures.loading import load_images
from train.evaluation.evaluate import compute_maps, judged_pixels
from train.evaluation.figures import data_uri, extent_of, panels
from train.support.files import readable_text, sha256_of
from train.support.pages import render_page

MOST_PICTURES = 6
ROWS = (
    ("stage weights", "stage_weights"),
    ("blur, pixels", "smoothing_sigma"),
    ("background removed by", "foreground"),
    ("image threshold", "image_threshold"),
    ("AUROC of known defects", "auroc"),
    ("escapes at the threshold", "n_escapes"),
    ("share of a defect's mask that is marked", "mask_marked"),
    ("false rejects of held-out good images", "n_false_rejects"),
)


@dataclass(frozen=True)
class KnownSection:
    """The report's section on known defects.

    Attributes:
        metrics: the entry `known_defects` of metrics.json.
        rows: a name, then the value before, after, and after with each defect having had a say.
        pictures: the worst escapes, each a data URI and its caption.
        notes: one sentence each.
    """

    metrics: dict[str, Any]
    rows: list[tuple[str, str, str, str]]
    pictures: list[tuple[str, str]]
    notes: list[str]

    @property
    def image_size(self) -> str:
        """Of the networks, pixels: `256`, or `384x512`."""
        return size_text(parse_size(self.metrics["image_size"]))


def describe_known_defects(
    content: dict[str, Any],
    checkpoint: Checkpoint,
    *,
    adopted: bool,
    test: Sequence[TestImage],
    finder: ForegroundFinder,
    device: torch.device,
) -> KnownSection:
    """The section on the figures of known_defects.json.

    Args:
        content: of that file.
        checkpoint: whose maps are drawn.
        adopted: whether the checkpoint judges as they chose; False where it was only asked what they would choose.
        test: the images of the evaluation, in which known defects may be.
        finder: of the checkpoint's foreground.
        device: where the maps are computed.
    """
    digests = {defect["sha256"] for defect in content["defects"]}
    n_tested = sum(sha256_of(image.path) in digests for image in test)
    notes = [content["why"]]
    if n_tested:
        notes.append(
            f"{n_tested} of the {len(test)} test images are known defects: what these chose suits them, and the "
            "figures of the test set flatter."
        )
    escapes = [defect for defect in content["defects"] if defect["after"]["escapes"]]
    escapes.sort(
        key=lambda defect: float(defect["after"]["score"] / max(defect["after"]["threshold"], 1e-12))
    )
    pictures, gone = _pictures(
        escapes[:MOST_PICTURES], Path(content["origin"]["path"]), checkpoint, finder, device
    )
    if gone:
        notes.append(f"{gone} of the escapes are not shown: their files are gone or have changed.")
    metrics = {"adopted": adopted, "n_test_images": n_tested, **content}
    before, after, in_sample = (_column(content, name) for name in ("before", "after", "in_sample"))
    rows = [
        (label, before[key], after[key], in_sample[key])
        for label, key in ROWS
        if key != "mask_marked" or content["before"]["mask_marked"] is not None
    ]
    return KnownSection(metrics, rows, pictures, notes)


def render_known_defects(section: KnownSection, *, category: str) -> str:
    """A page of the section alone, as HTML text, for a category without test images."""
    page = render_page("train.evaluation", "known_defects_page.html.j2", known=section, category=category)
    return readable_text(page)


def _column(content: dict[str, Any], name: str) -> dict[str, str]:
    standing = content[name]
    count, n_good = len(content["defects"]), content["n_good"]
    marked = standing["mask_marked"]
    return {
        "stage_weights": ", ".join(f"{weight:.2f}" for weight in standing["stage_weights"]),
        "smoothing_sigma": f"{standing['setting']['smoothing_sigma']:g}",
        "foreground": standing["setting"]["foreground"],
        "image_threshold": f"{standing['image_threshold']:.4f}",
        "auroc": f"{standing['auroc']:.4f}",
        "n_escapes": f"{standing['n_escapes']} of {count}",
        "mask_marked": "–" if marked is None else f"{100 * marked:.1f} %",
        "n_false_rejects": f"{standing['n_false_rejects']} of {n_good}",
    }


def _pictures(
    escapes: Sequence[dict[str, Any]],
    root: Path,
    checkpoint: Checkpoint,
    finder: ForegroundFinder,
    device: torch.device,
) -> tuple[list[tuple[str, str]], int]:
    """Pictures of those defects whose files are what they were, and how many are not."""
    there = [
        defect
        for defect in escapes
        if (root / defect["file"]).is_file() and sha256_of(root / defect["file"]) == defect["sha256"]
    ]
    gone = len(escapes) - len(there)
    if not there:
        return [], gone
    loaded = load_images(
        [root / defect["file"] for defect in there],
        image_size=checkpoint.config.image_size,
        strict=False,
        bit_depth=checkpoint.provenance.bit_depth,
        keep_aspect=checkpoint.provenance.keep_aspect,
        reference=checkpoint.reference,
        what="escapes among known defects",
    )
    parts, judged = (
        find_foreground(loaded.pixels, finder, device=device),
        judged_pixels(checkpoint.calibration, loaded),
    )
    what = "Escapes among known defects"
    maps = remove_background(
        compute_maps(checkpoint, loaded.pixels, device=device, what=what, shown=judged),
        within_picture(parts, judged),
        checkpoint.calibration.regions,
    )
    regions = checkpoint.calibration.regions
    inspected = None if regions is None else inspected_pixels(regions, maps.shape[1:])
    threshold = checkpoint.calibration.image_threshold
    usual = min(float(np.median(maps)), threshold)
    shown: list[tuple[str, str]] = []
    for index, pixels, own_map in zip(loaded.readable, loaded.pixels, maps, strict=True):
        defect = there[index]
        seen = np.s_[:, :] if loaded.shown is None else extent_of(loaded.shown[len(shown)])
        outline = None if inspected is None else inspected[seen]
        figure = panels(
            pixels[seen], own_map[seen], None, usual=usual, threshold=threshold, inspected=outline
        )
        verdict = defect["after"]
        caption = f"{defect['file']}: {verdict['score']:.3f}, threshold {verdict['threshold']:.3f}"
        shown.append((data_uri(figure, dpi=100), caption))
    return shown, gone
