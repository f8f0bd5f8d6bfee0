"""Which training images may show a defect: a ranking for a person to look at. No image is removed.

An image is suspect when one of its regions looks like nothing in the other training images. Each position of the
teacher's stage 3 is compared with all positions of the other images, and the distance to the third nearest image
counts: a defective image of which the folder has two copies must not pass because its copy looks the same.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from model_repository.distance_fusion.map_fusion import upsampling_matrix
from model_repository.image_size import size_text
from train.config import FitConfig, refuse_native
from train.data.bit_depth import find_bit_depth
from train.data.category import CategoryData
from train.data.pictures.loading import load_images
from train.data.shapes import keeps_aspect
from train.errors import DataError
from train.fitting.features import compute_teacher_features
from train.method.student import load_teacher
from train.support.arrays import FloatArray
from train.support.devices import Runtime
from train.support.files import require_writable, write_json, write_text
from train.support.pages import png_uri, render_page
from train.support.progress import progress_bar
from train.support.tables import ResultTable, number

N_TH_IMAGE = 3
REGION_RATIO = 1 / 16  # of the positions: the mean of those with the largest distances is the image score


@dataclass(frozen=True)
class Suspects:
    """A category's training images, the most suspect first.

    Attributes:
        paths: N image files.
        scores: [N] float32, in descending order.
        maps: [N, h, w] float32, distance of each position to the other images.
        pixels: [N, H, W, 3] uint8.
    """

    paths: tuple[Path, ...]
    scores: FloatArray
    maps: FloatArray
    pixels: NDArray[np.uint8]


def rank_suspects(data: CategoryData, *, config: FitConfig, scratch_dir: Path, runtime: Runtime) -> Suspects:
    """Rank all images of train/good, those that fitting holds out too, with the configuration's teacher and image size.

    Features that do not fit in memory lie in `scratch_dir`.

    Raises:
        UserError: bad images or weights, fewer than two images, or a folder that nothing can be written into.
    """
    refuse_native(config, "The search for suspects")
    device = runtime.torch_device
    teacher, _ = load_teacher(config, weights_dir=runtime.weights_dir)
    teacher.to(device)
    images = load_images(
        data.train_good,
        image_size=config.image_size,
        strict=runtime.strict,
        bit_depth=find_bit_depth(data, asked=config.bit_depth),
        keep_aspect=keeps_aspect(data, asked=config.aspect, size=config.image_size),
        what="training images",
    )
    if len(images.pixels) < 2:
        raise DataError(
            f"{data.root} has 1 training image that can be read; expected at least 2 to compare with each other."
        )
    require_writable(scratch_dir)
    features = compute_teacher_features(teacher, images.pixels, scratch_dir=scratch_dir, device=device)
    maps = neighbour_distances(features.stages[2], n_th_image=N_TH_IMAGE, device=device)
    scores = region_scores(maps)
    order = np.argsort(-scores, kind="stable")
    paths = [data.train_good[index] for index in images.readable]
    return Suspects(
        paths=tuple(paths[index] for index in order),
        scores=scores[order],
        maps=maps[order],
        pixels=images.pixels[order],
    )


def neighbour_distances(feature: FloatArray, *, n_th_image: int, device: torch.device) -> FloatArray:
    """Distance of each position's vector to the n-th nearest of the other images, [N, h, w, C] to [N, h, w] float32.

    The distance to an image is that to its nearest position, wherever it lies. N is at least 2, and 1 is the nearest.
    """
    n_images, height, width, channels = feature.shape
    vectors = torch.from_numpy(np.asarray(feature)).reshape(-1, channels).to(device)  # [N * P, C]
    distances = np.empty((n_images, height * width), np.float32)
    with progress_bar("Comparing images", n_images) as bar:
        for index in range(n_images):
            own = vectors.reshape(n_images, -1, channels)[index]
            to_images = torch.cdist(own, vectors).reshape(len(own), n_images, -1).amin(dim=-1)  # [P, N]
            to_images[:, index] = torch.inf
            rank = min(n_th_image, n_images - 1)
            distances[index] = to_images.kthvalue(rank, dim=1).values.cpu().numpy()
            bar.advance()
    return distances.reshape(n_images, height, width)


def region_scores(maps: FloatArray) -> FloatArray:
    """Image scores [N]: mean over the farthest sixteenth of each map [N, h, w], one position at least."""
    flat = np.sort(maps.reshape(len(maps), -1), axis=1)
    n_positions = max(1, round(REGION_RATIO * flat.shape[1]))
    scores: FloatArray = flat[:, -n_positions:].mean(axis=1)
    return scores


def write_suspects(
    suspects: Suspects, data: CategoryData, *, config: FitConfig, run_dir: Path, top: int
) -> Path:
    """Write the whole ranking to suspects.json and the first `top` images to suspects.html; the path of the latter."""
    ranking = [
        {"rank": rank, "score": round(float(score), 6), "path": str(path)}
        for rank, (score, path) in enumerate(zip(suspects.scores, suspects.paths, strict=True), start=1)
    ]
    described: dict[str, Any] = {
        "category": data.category,
        "dataset": data.dataset,
        "synthetic": data.synthetic,
        "data_fingerprint": data.fingerprint(),
        **config.model_dump(include={"teacher", "weights"}),
        "image_size": config.image_size,
    }
    write_json(run_dir / "suspects.json", described | {"ranking": ranking})
    page = render_page(
        "train.studies",
        "suspects.html.j2",
        **described | {"image_size": size_text(config.image_size)},
        n_images=len(suspects.paths),
        pictures=[
            (picture(suspects, index), str(path), float(suspects.scores[index]))
            for index, path in enumerate(suspects.paths[:top])
        ],
    )
    write_text(run_dir / "suspects.html", page)
    return run_dir / "suspects.html"


def picture(suspects: Suspects, index: int) -> str:
    """An image beside itself under its map, as a data URI; all pictures have one colour scale."""
    image = suspects.pixels[index]
    low, high = float(np.median(suspects.maps)), float(suspects.maps.max())
    rows, columns = (
        upsampling_matrix(*sides) for sides in zip(suspects.maps.shape[1:], image.shape, strict=False)
    )
    heat = (rows @ suspects.maps[index] @ columns.T - low) / max(high - low, 1e-12)
    colours = 255 * colormaps["inferno"](heat.clip(0, 1))[..., :3]  # [H, W, 3]
    overlay = (0.5 * image + 0.5 * colours).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.hstack([image, overlay])).save(buffer, format="png")
    return png_uri(buffer.getvalue())


def suspects_table(suspects: Suspects, *, top: int) -> ResultTable:
    """The first `top` images: rank, score, path."""
    ranked = enumerate(zip(suspects.scores[:top], suspects.paths, strict=False), start=1)
    return ResultTable(
        title=f"The most suspect of {len(suspects.paths)} training images",
        columns=("rank", "score", "path"),
        rows=tuple((str(rank), number(score, 3), str(path)) for rank, (score, path) in ranked),
    )
