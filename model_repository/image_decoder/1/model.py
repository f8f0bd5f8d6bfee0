"""Triton Python backend: an image file's bytes in, the RGB image of one size that the backbones take out."""

from __future__ import annotations

import io
import json
import warnings

import image_decoding
import numpy as np
import picture_limits
import resizing
import triton_python_backend_utils as pb_utils

MAX_FAULTS = 10  # that an error describes: gRPC cuts long messages off


class TritonPythonModel:
    """Decodes and resizes with the same function as training and the client."""

    # Unless the configuration says so.
    keep_aspect = False
    max_pixels = 0

    def initialize(self, args: dict[str, str]) -> None:
        """Read the image size from the configuration of the `image` output, the rest from its parameters."""
        config = json.loads(args["model_config"])
        image = next(output for output in config["output"] if output["name"] == "image")
        height, width, _ = map(int, image["dims"])
        self.image_size = height, width
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        self.bit_depth = int(parameters.get("bit_depth", "8"))
        self.keep_aspect = parameters.get("aspect") == "keep"
        # Of an image that keeps its own size; what that is comes with it.
        self.max_pixels = int(parameters.get("max_pixels", "0"))
        # A line in the server's log for each odd tag, of which a file may have thousands.
        warnings.filterwarnings("ignore", module="PIL")

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request; a fault in one is that one's error alone."""
        return [self.answer(request) for request in requests]

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        """The images of one request, or its error; raised, it would fail the whole batch."""
        try:
            return self.decode(request)
        except Exception as error:  # no memory for the images, say
            reason = f"no image can be decoded ({type(error).__name__}: {error})"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason))

    def decode(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        """Decode the [B, 1] image files of one request; where some are broken, the error names each of them."""
        encoded = pb_utils.get_input_tensor_by_name(request, "encoded_image").as_numpy()
        images: list[np.ndarray] = []
        sizes, faults = np.empty((len(encoded), 2), np.int32), []  # height, width
        shown = np.empty((len(encoded), 4), np.int32)  # top, left, bottom, right
        for index, data in enumerate(encoded[:, 0]):
            which = f"image {index + 1} of {len(encoded)}: encoded_image"
            try:
                if self.max_pixels:
                    require_own_size(data, self.max_pixels)
                image, sizes[index] = image_decoding.decode_resized(
                    data, self.image_size, bit_depth=self.bit_depth, keep_aspect=self.keep_aspect
                )
                images.append(image)
                shown[index] = self.shown(*sizes[index].tolist())
            except image_decoding.ImageError as error:
                faults.append(f"{which} {error}")
            except (
                Exception
            ) as error:  # memory that does not suffice, say; raised, it would fail the whole batch
                reason = f"{which} cannot be decoded ({type(error).__name__}: {error})"
                return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason))
        if faults:
            return pb_utils.InferenceResponse(error=bad_files(faults))
        tensors = [pb_utils.Tensor("image", together(images)), pb_utils.Tensor("original_size", sizes)]
        if "shown" in request.requested_output_names():
            tensors.append(pb_utils.Tensor("shown", shown))
        return pb_utils.InferenceResponse(tensors)

    def shown(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The first row and column that show an image of a size where it is put, and the first beyond it."""
        if not (self.keep_aspect or resizing.is_native(self.image_size)):
            return 0, 0, *self.image_size
        rows, columns = resizing.fitted_part((width, height), self.image_size)
        return rows.start, columns.start, rows.stop, columns.stop


def require_own_size(data: bytes, max_pixels: int) -> None:
    """Refuse an image that keeps its own size and is too large or small to be judged at it, by its header.

    Raises:
        ImageError: it is.
    """
    try:
        with image_decoding.open_image(io.BytesIO(data)) as image:
            size = image.size
    except OSError:
        return  # what it is, is told where it is decoded
    picture_limits.require_own_size(*size, max_pixels=max_pixels)


def together(images: list[np.ndarray]) -> np.ndarray:
    """[B, H, W, 3] of images of one size; a single one is not copied."""
    return images[0][None] if len(images) == 1 else np.stack(images)


def bad_files(faults: list[str]) -> pb_utils.TritonError:
    """The error of a request whose files are no images."""
    more = f"; and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
    return pb_utils.TritonError("; ".join(faults[:MAX_FAULTS]) + more, pb_utils.TritonError.INVALID_ARG)
