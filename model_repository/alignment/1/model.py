"""Triton Python backend: a part that lies anywhere is brought to where the networks know it, and its maps back.

An ensemble has it twice. First an image comes in, and the aligned image and its motion go out. Last, the maps of the
aligned image come in with that motion, and go out in the frame of the image that was sent. The reference picture of the
category lies beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import picture_alignment
import triton_python_backend_utils as pb_utils
from reference_picture import FILE, Reference

MAX_FAULTS = 10  # that an error describes: gRPC cuts long messages off


class TritonPythonModel:
    """Aligns and restores with the same functions as training and evaluation."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the reference picture, and align it to itself, so that the first request finds everything loaded.

        Raises:
            ValueError: it cannot be used.
        """
        path = Path(args["model_repository"], args["model_version"], FILE)
        try:
            reference = Reference.load(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be used ({error}); publish the category again") from None
        if reference.opencv != picture_alignment.OPENCV:
            pb_utils.Logger.log_warn(
                f"{path} was made with OpenCV {reference.opencv or 'unknown'}, and this is {picture_alignment.OPENCV}: "
                "scores will differ a little from those measured; install that version"
            )
        self.aligner = picture_alignment.Aligner(reference)
        self.aligner.nearest(reference.picture)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request; a fault in one is that one's error alone."""
        return [self.answer(request) for request in requests]

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        """Align the images of one request, or restore its maps; raised, a fault would fail the whole batch."""
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            if "image" in given:
                return self.align(given["image"])
            return self.restore(**given)
        except Exception as error:  # memory that does not suffice, say
            reason = f"no image can be aligned ({type(error).__name__}: {error})"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason))

    def align(self, images: picture_alignment.Pixels) -> pb_utils.InferenceResponse:
        """Align [B, H, W, 3] images; where some cannot be, the error names each of them."""
        pixels, motions, faults = np.empty_like(images), np.empty((len(images), 2, 3), np.float32), []
        for index, image in enumerate(images):
            try:
                aligned = self.aligner.align(image)
            except picture_alignment.AlignmentError as error:
                faults.append(f"image {index + 1} of {len(images)} {error}")
                continue
            pixels[index], motions[index] = aligned.pixels, aligned.motion
        if faults:
            more = f"; and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
            reason = "; ".join(faults[:MAX_FAULTS]) + more
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(reason, pb_utils.TritonError.INVALID_ARG)
            )
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("aligned_image", pixels), pb_utils.Tensor("motion", motions)]
        )

    def restore(
        self, aligned_map: np.ndarray, aligned_mask: np.ndarray, aligned_motion: np.ndarray
    ) -> pb_utils.InferenceResponse:
        """Maps and masks [B, H, W] in the frame of the images that were sent; motions [B, 2, 3]."""
        maps = picture_alignment.restore_maps(aligned_map, aligned_motion)
        masks = picture_alignment.restore_masks(aligned_mask, aligned_motion)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("anomaly_map", maps), pb_utils.Tensor("pred_mask", masks)]
        )
