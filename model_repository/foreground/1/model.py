"""Triton Python backend: an image in, the mask of the part on it out."""

from __future__ import annotations

import foreground_mask
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Finds the part with the same function as calibration and evaluation."""

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request on its own."""
        return [self.answer(request) for request in requests]

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        """Find the part in the [B, S, S, 3] images of one request."""
        image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("foreground", foreground_mask.foreground_mask(image))]
        )
