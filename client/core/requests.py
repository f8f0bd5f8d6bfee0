"""What goes to the server for some images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from client.core.category import ENCODED, Category
from client.core.errors import RefusedImage
from client.core.inputs import Prepared
from model_repository.distance_fusion.fusion_shown import PARAMETER, text_of_boxes
from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS
from model_repository.image_decoder import picture_limits
from model_repository.image_decoder.image_decoding import resize_image
from model_repository.image_decoder.resizing import fitted_part
from model_repository.image_size import (
    NATIVE,
    ImageSize,
    filled_size,
    height_width,
    n_pixels,
)
from model_repository.image_size import image_size as size_of

ORIGINAL_SIZE = "original_size"  # that the server says of files: it decodes them
MAP_TYPES = {"anomaly_map": np.float32, "pred_mask": np.bool_}
BYTES_A_PIXEL = 8  # three of the image, four of its map, one of its mask


@dataclass(frozen=True)
class Question:
    """What is asked about images.

    Attributes:
        outputs: what to ask for, `VERDICT_OUTPUTS` or `SCORE_OUTPUTS`.
        threshold: image threshold in place of the release's own.
        min_area: of the defects that the verdicts list.
        probe: the images are no parts: the server's metrics do not count them.
    """

    outputs: Sequence[str]
    threshold: float | None
    min_area: int = 0
    probe: bool = False

    @property
    def for_maps(self) -> bool:
        """Whether it asks for whole verdicts, and not for scores alone."""
        return "anomaly_map" in self.outputs


@dataclass(frozen=True)
class Place:
    """Where a region of shared memory has room for the tensors of one request.

    Attributes:
        name: that the server knows it by.
        batch: images that it has room for.
        image_size: of each, pixels.
    """

    name: str
    batch: int
    image_size: ImageSize

    @property
    def size(self) -> int:
        """Bytes."""
        return BYTES_A_PIXEL * self.batch * n_pixels(self.image_size)

    def offset(self, name: str) -> int:
        """Where a tensor begins, bytes."""
        return {"image": 0, "anomaly_map": 3, "pred_mask": 7}[name] * self.batch * n_pixels(self.image_size)


@dataclass(frozen=True)
class Request:
    """A request for the verdicts of some images.

    Attributes:
        model: the ensemble.
        content: image files, or pixels [B, H, W, 3] uint8.
        sizes: width and height of each image as it came; empty for files, which the server decodes.
        map_shape: of the anomaly maps and of the masks, [B, H, W]; H and W are -1 of files that keep their own size,
            which the server alone decodes.
        question: what to ask for.
        place: where images and maps are handed over, or None for the wire; files always take the wire.
        keep_aspect: images keep their shape, and maps show them and what is filled beside them.
        native: images keep their own size, and maps show them and what they are filled up with.
    """

    model: str
    content: Sequence[bytes] | NDArray[np.uint8]
    sizes: tuple[tuple[int, int], ...]
    map_shape: tuple[int, int, int]
    question: Question
    place: Place | None
    keep_aspect: bool = False
    native: bool = False

    @property
    def pixels(self) -> NDArray[np.uint8] | None:
        """Images [B, H, W, 3]; None for files."""
        return self.content if isinstance(self.content, np.ndarray) else None

    @property
    def outputs(self) -> tuple[str, ...]:
        """What is asked for: also the original sizes, where the server alone knows them."""
        asks_size = self.question.for_maps and not self.sizes
        return (*self.question.outputs, ORIGINAL_SIZE) if asks_size else tuple(self.question.outputs)

    def seen(self, original_size: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of a map that show an image of this width and height, and not what is filled beside it."""
        if not (self.keep_aspect or self.native):
            return slice(0, self.map_shape[1]), slice(0, self.map_shape[2])
        return fitted_part(original_size, NATIVE if self.native else self.map_shape[1:])

    @property
    def boxes(self) -> NDArray[np.int64] | None:
        """[B, 4]: where in the pixels that are sent the images lie; None where the server knows, or they fill them."""
        if not (self.sizes and (self.keep_aspect or self.native)):
            return None
        return np.array(
            [
                (rows.start, columns.start, rows.stop, columns.stop)
                for rows, columns in map(self.seen, self.sizes)
            ]
        )

    def message(self, *, timeout_s: float) -> Any:
        """The message of gRPC's `ModelInfer` with a deadline of so many seconds."""
        message = service_pb2.ModelInferRequest(model_name=self.model)
        self._add_images(message)
        for name in self.outputs:
            output = message.outputs.add(name=name)
            if self.place is not None and name in MAP_OUTPUTS:
                size = math.prod(self.map_shape) * np.dtype(MAP_TYPES[name]).itemsize
                _refer(output, self.place, name, size)
        parameters = message.parameters
        # The server refuses what still waits then: no backbone works for who has given up.
        parameters["timeout"].int64_param = max(1, round(1e6 * timeout_s))
        if not self.question.for_maps:
            # Fewer outputs do not suffice: an ensemble asks its last step for all of them, whatever it is asked for.
            parameters["score_only"].bool_param = True
        if self.question.probe:
            parameters["probe"].bool_param = True
        if self.question.threshold is not None:
            parameters["threshold"].string_param = str(self.question.threshold)
        if (boxes := self.boxes) is not None:
            parameters[PARAMETER].string_param = text_of_boxes(boxes)
        return message

    def _add_images(self, message: Any) -> None:
        if not isinstance(self.content, np.ndarray):
            message.inputs.add(name="encoded_image", datatype="BYTES", shape=[len(self.content), 1])
            message.raw_input_contents.append(b"".join(map(_with_length, self.content)))
            return
        tensor = message.inputs.add(name="image", datatype="UINT8", shape=self.content.shape)
        if self.place is not None:
            _refer(tensor, self.place, "image", self.content.nbytes)
        else:
            message.raw_input_contents.append(self.content.tobytes())


def _with_length(file: bytes) -> bytes:
    """A file as Triton takes one of several: its length before it."""
    return len(file).to_bytes(4, "little") + file


def _refer(tensor: Any, place: Place, name: str, size: int) -> None:
    """Say where in shared memory a tensor's bytes are."""
    tensor.parameters["shared_memory_region"].string_param = place.name
    tensor.parameters["shared_memory_byte_size"].int64_param = size
    tensor.parameters["shared_memory_offset"].int64_param = place.offset(name)


def make_request(
    images: Sequence[Prepared],
    question: Question,
    *,
    category: str,
    image_size: ImageSize,
    place: Place | None,
    keep_aspect: bool = False,
) -> Request:
    """A request about images that are all files or all pictures, see `batching`.

    Args:
        images: at least one.
        question: what is asked.
        category: the published product.
        image_size: of the images that its networks see; -1 where each keeps its own.
        place: shared memory, or None for the wire.
        keep_aspect: see `Category`.
    """
    files = [image.sent for image in images if isinstance(image.sent, bytes)]
    pictures = [image.sent for image in images if not isinstance(image.sent, bytes)]
    map_shape, native = (len(images), *height_width(image_size)), image_size == NATIVE
    if files:
        return Request(category + ENCODED, files, (), map_shape, question, place, keep_aspect, native)
    resized = [resize_image(picture, image_size, keep_aspect=keep_aspect) for picture in pictures]
    pixels = np.stack(resized) if len(resized) > 1 else resized[0][None]  # which may be large: not copied
    sizes = tuple(image.size for image in images if image.size is not None)
    return Request(category, pixels, sizes, pixels.shape[:3], question, place, keep_aspect, native)


def size_in_memory(images: Sequence[Prepared], found: Category) -> ImageSize | None:
    """The size of the images as they go to the server in shared memory.

    Of images that keep their own size it is that of the one picture; None of a file, whose maps' size the server alone
    knows: it takes the wire.
    """
    if not found.is_native:
        return found.image_size
    if images[0].size is None:
        return None
    width, height = images[0].size
    return size_of(*filled_size(height, width))


def require_own_size(images: Sequence[Prepared], found: Category) -> None:
    """Refuse a picture that is too large or small for its own size, before it is sent, or several in one request.

    Raises:
        RefusedImage: it is, or there are several, which were put together for a release of before.
    """
    if found.is_native and len(images) > 1:
        raise RefusedImage(
            f"None of {len(images)} images is judged: the category judges each at its own size, one a request."
        )
    for size in (image.size for image in images if found.max_pixels):
        if size is not None:
            try:
                picture_limits.require_own_size(*size, max_pixels=found.max_pixels)
            except picture_limits.ImageError as error:
                raise RefusedImage(f"The image {error}.") from None
