"""The images that a release is asked about before it becomes live, with the scores that it is to give them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.errors import PublishError
from export.graphs.chain import OnnxChain, open_session
from export.manifest import GraphFiles, Manifest
from export.serving.native_pictures import usual_size
from model_repository.alignment.reference_picture import FILE, Reference
from model_repository.distance_fusion.fusion_shown import hide_beside, shown_pixels, within_picture
from model_repository.distance_fusion.map_fusion import (
    Calibration,
    fuse_distances,
    image_scores,
    remove_background,
)
from model_repository.foreground.foreground_mask import foreground_mask
from model_repository.image_decoder.resizing import resize_image
from model_repository.image_size import NATIVE, ImageSize, height_width, image_size

PROBES = 2
TINT = 0.1  # of the blocks in probes that are aligned
BLOCKS = 16  # a side: few enough for a small file, with edges in every part


def make_probes(build: Path, manifest: Manifest) -> list[tuple[bytes, float]]:
    """PNG files and their scores by a build's graphs in ONNX Runtime, its fusion and its calibration.

    They are coloured blocks, the same for every product: what is asked is whether a server computes what was judged
    at publishing, and for that any picture does, but where images are aligned: see `_aligned_probes`. SAM takes seconds
    an image, so that it gets one.

    Raises:
        PublishError: regions and background removal leave nothing of one.
    """
    size, method = _size(manifest), manifest.config.foreground
    sent = np.stack([_blocks(number, size) for number in range(1 if method == "sam" else PROBES)])
    images, motions = sent, None
    if manifest.provenance.aligned:
        sent, images, motions = _aligned_probes(Reference.load(build / FILE), sent)
    if manifest.config.is_native:
        images = np.stack([resize_image(image, NATIVE) for image in sent])
    calibration, shown = Calibration.load(build / "calibration.json"), None
    if calibration.picture_only:
        boxes = np.tile((0, 0, *sent.shape[1:3]), (len(sent), 1))
        shown = shown_pixels(boxes, motions, images.shape[1:3], len(sent))
    chain, scores = OnnxChain.open(GraphFiles.in_folder(build)), list[float]()
    # Images that keep their own size may be large: one after the other.
    at_once = 1 if manifest.config.is_native else len(images)
    for start in range(0, len(images), at_once):
        part = slice(start, start + at_once)
        seen = None if shown is None else shown[part]
        scores += _scores(build, method, chain, images[part], calibration=calibration, shown=seen)
    return [(_png(image), score) for image, score in zip(sent, scores, strict=True)]


def _size(manifest: Manifest) -> ImageSize:
    """The usual one; regions of images that keep their own size hold for that of the picture they are drawn on."""
    if manifest.config.is_native and manifest.config.regions is not None:
        width, height = manifest.config.regions.picture
        return image_size(height, width)
    return usual_size(manifest)


def _scores(
    build: Path,
    method: str,
    chain: OnnxChain,
    images: NDArray[np.uint8],
    *,
    calibration: Calibration,
    shown: NDArray[np.bool_] | None,
) -> list[float]:
    """The scores of images [N, H, W, 3] as networks see them, by what shows the pictures; raises as `make_probes`."""
    distances, _ = chain.run(images)
    fused = fuse_distances(hide_beside(distances, shown), calibration.fusion)
    parts = within_picture(_parts(build, method, images), shown)
    try:
        anomaly_maps = remove_background(fused, parts, calibration.regions)
    except ValueError as error:  # of blocks the regions may show the background alone
        raise PublishError(
            f"{build} cannot be probed: of the blocks that a server is asked about, {error}; draw its regions "
            "larger."
        ) from None
    scores: list[float] = image_scores(
        anomaly_maps, calibration.score_share, calibration.score_pixels
    ).tolist()
    return scores


def _aligned_probes(
    reference: Reference, blocks: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """What is sent where images are aligned, as blocks cannot be, what the networks see of it, and the motions.

    That is the reference picture with a little of the blocks' colours, which leaves it what it is.
    """
    from model_repository.alignment.picture_alignment import Aligner  # it loads OpenCV

    tinted = reference.picture * (1 - TINT) + blocks * TINT
    sent = tinted.round().astype(np.uint8)
    aligned = [Aligner(reference).align(image) for image in sent]
    return sent, np.stack([one.pixels for one in aligned]), np.stack([one.motion for one in aligned])


def _parts(build: Path, method: str, images: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    if method == "none":
        return None
    if method == "threshold":
        return foreground_mask(images)
    (mask,) = open_session(build / "foreground.onnx").run(None, {"image": images})
    return np.asarray(mask)


def _blocks(seed: int, size: ImageSize) -> NDArray[np.uint8]:
    """[H, W, 3]: blocks of one colour each, drawn by a number."""
    colours = np.random.default_rng(seed).integers(0, 256, (BLOCKS, BLOCKS, 3), np.uint8)
    rows, columns = (np.arange(side) * BLOCKS // side for side in height_width(size))
    return np.asarray(colours[rows][:, columns])


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
