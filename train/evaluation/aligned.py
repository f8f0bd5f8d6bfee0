"""What was judged of aligned images, brought back to the images as they were sent, which masks are drawn on."""

from __future__ import annotations

from dataclasses import replace

from model_repository.distance_fusion.map_fusion import Verdict
from train.data.pictures.loaded import LoadedImages
from train.evaluation.pixel_metrics import BoolArray


def as_sent(
    images: LoadedImages, verdict: Verdict, parts: BoolArray | None
) -> tuple[LoadedImages, Verdict, BoolArray | None]:
    """Images, their verdict and the masks of their parts [N, H, W] as clients get them from the server.

    Scores and labels stay those of the aligned images. Where nothing was aligned, all stays as it is.
    """
    if images.sent is None:
        return images, verdict, parts
    from model_repository.alignment.picture_alignment import restore_maps, restore_masks  # it loads OpenCV

    motions = images.sent.motions
    restored = replace(
        verdict,
        anomaly_map=restore_maps(verdict.anomaly_map, motions),
        pred_mask=restore_masks(verdict.pred_mask, motions),
    )
    lying = replace(images, pixels=images.sent.pixels, shown=images.sent.shown)
    return lying, restored, None if parts is None else masks_as_sent(images, parts)


def masks_as_sent(images: LoadedImages, masks: BoolArray) -> BoolArray:
    """Masks [N, H, W] of images as networks see them, in the images as they were sent."""
    if images.sent is None:
        return masks
    from model_repository.alignment.picture_alignment import restore_masks  # it loads OpenCV

    return restore_masks(masks, images.sent.motions)
