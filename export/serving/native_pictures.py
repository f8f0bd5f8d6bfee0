"""How pictures that keep their own size are served: one a request, of so many pixels at most, large ones in strips.

Pictures of different sizes cannot be put together, and one of megapixels fills a processor alone: batches hold one.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.manifest import Manifest
from export.serving.queues import QueuePolicy
from model_repository.image_size import SIDE_STEP, ImageSize, filled_size, image_size

MAX_BATCH = 1
MAX_MEGAPIXELS = "ASTMFR_NATIVE_MEGAPIXELS"  # an environment variable, read at publishing
DEFAULT_MAX_MEGAPIXELS = 25.0  # cameras of factories have 5 to 20
# Of a strip with its margins at most, by what its part takes for a pixel: 5 megapixels of the last stage, whose margins
# are wide, in one piece. Where margins are thin `model_repository.picture_strips` takes thin strips.
STRIP_BYTES = 200_000_000
QUEUE = QueuePolicy(size=8)  # each request holds a picture, or its feature maps: megabytes


@dataclass(frozen=True)
class NativePictures:
    """How a graph is run over pictures of any size.

    Attributes:
        usual_size: of those that it is warmed up with.
        max_pixels: of a picture.
    """

    usual_size: ImageSize
    max_pixels: int

    @classmethod
    def of(cls, manifest: Manifest) -> NativePictures | None:
        """That of a build's graphs; None where its pictures have one size.

        Raises:
            PublishError: the build does not say in which parts its graphs run, or see `max_pixels`.
        """
        if not manifest.config.is_native:
            return None
        if not manifest.parts:
            raise PublishError(
                f"The build of {manifest.category} does not say in which parts its graphs run; nothing is published; "
                "export again."
            )
        return cls(usual_size(manifest), max_pixels())

    def parameters(self) -> dict[str, str]:
        """As the Python backend reads them among its model's parameters."""
        return {"max_pixels": str(self.max_pixels)}


def part_names(manifest: Manifest, graph: str) -> dict[str, str]:
    """The files of a graph's parts in the build, by those in a version folder, where the graph is `model.onnx`."""
    return {
        "model.onnx" if part.file == f"{graph}.onnx" else f"part_{number}.onnx": part.file
        for number, part in enumerate(manifest.parts.get(graph, ()), start=1)
    }


def parts_json(manifest: Manifest, graph: str) -> bytes:
    """What `parts.json` in a version folder tells the Python backend: each part's file, tensors and strips."""
    names = part_names(manifest, graph)
    parts = [
        {
            "file": name,
            "inputs": part.inputs,
            "outputs": part.outputs,
            "strip_step": part.strip_step,
            "strip_margin": part.strip_margin,
            "strip_pixels": STRIP_BYTES // part.bytes_per_pixel,
        }
        for name, part in zip(names, manifest.parts[graph], strict=True)
    ]
    return (json.dumps(parts, indent=2) + "\n").encode()


def usual_size(manifest: Manifest) -> ImageSize:
    """The size that its networks see images at; of images that keep their own, that of the crops it was trained on.

    With regions it is that of the picture that they are drawn on, since they hold for no other.
    """
    config = manifest.config
    if config.is_native and config.regions is not None:
        width, height = config.regions.picture
        return image_size(*filled_size(height, width))
    return config.training_size


def largest_size(manifest: Manifest) -> ImageSize:
    """The same; of images that keep their own size, a square of as many pixels as are judged."""
    size = manifest.config.image_size
    return math.isqrt(max_pixels()) // SIDE_STEP * SIDE_STEP if manifest.config.is_native else size


def max_pixels() -> int:
    """Pixels of a picture that is judged at its own size: those that the environment states, else 25 million.

    Raises:
        PublishError: the environment states no number of at least 0.1.
    """
    text = os.environ.get(MAX_MEGAPIXELS) or str(DEFAULT_MAX_MEGAPIXELS)
    try:
        megapixels = float(text)
    except ValueError:
        megapixels = math.nan
    if not 0.1 <= megapixels <= 10_000:
        raise PublishError(
            f"{MAX_MEGAPIXELS} is {text!r}; expected megapixels from 0.1 to 10,000; nothing is published."
        )
    return round(megapixels * 1e6)


def limit_parameter(config: pb.ModelConfig) -> dict[str, str]:
    """The limit that a step was configured with, as a parameter of the ensembles over it; empty where it has none."""
    if "max_pixels" not in config.parameters:
        return {}
    return {"max_pixels": str(config.parameters["max_pixels"].string_value)}


def require_servable(manifest: Manifest, *, platform: str, provider: str) -> None:
    """Refuse what pictures of their own size are not served with.

    Raises:
        PublishError: TensorRT.
    """
    if manifest.config.is_native and "tensorrt" in (platform, provider):
        raise PublishError(
            "TensorRT builds engines for pictures of one size, and this category judges each at its own; nothing is "
            "published; take --platform python, or onnxruntime with --execution-provider cuda, or train with a fixed "
            "--image-size."
        )
