"""Triton Python backend: an image in, the mask of the part on it out."""

from __future__ import annotations

import foreground_mask
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Finds the part with the same function as calibration and evaluation."""

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request; a fault in one is that one's error alone."""
        return [self.answer(request) for request in requests]

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        """Find the part in the [B, H, W, 3] images of one request."""
        image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        try:
            mask = foreground_mask.foreground_mask(image)
        except Exception as error:  # memory that does not suffice, say; raised, it would fail the whole batch
            reason = f"no part can be found in image {list(image.shape)} ({type(error).__name__}: {error})"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason))
        return pb_utils.InferenceResponse([pb_utils.Tensor("foreground", mask)])
