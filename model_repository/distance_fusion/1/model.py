"""Triton Python backend: distance maps in, anomaly map and verdict out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import map_fusion
import numpy as np
import triton_python_backend_utils as pb_utils
from map_fusion import Calibration

# Warm-up requests carry it; no release has it (train.checkpoint.tensors.release_id is never 0).
WARM_UP_RELEASE_ID = 0


class TritonPythonModel:
    """Fuses distance maps with the calibration of the release that made them."""

    def initialize(self, args: dict[str, str]) -> None:
        """Find the folder where `export` publishes one calibration a release, and read those that are there."""
        self.calibration_dir = Path(args["model_repository"]) / "calibrations"
        self.calibrations = {
            WARM_UP_RELEASE_ID: Calibration(
                release_id=WARM_UP_RELEASE_ID,
                category="warm-up",
                image_size=256,
                smoothing_sigma=4.0,
                pool_size=5,
                stage_weights=(1.0, 1.0, 1.0),
                image_threshold=float("inf"),
                pixel_threshold=float("inf"),
            )
        }
        for path in self.calibration_dir.glob("*.json"):
            with contextlib.suppress(ValueError):  # a damaged one is told to those who ask for its release
                build_matrices(self.calibration(int(path.stem)))

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request; a fault in one is that one's error alone."""
        return [self.answer(request) for request in requests]

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        """Fuse the maps of one request, whose images all come from one release."""
        try:
            return pb_utils.InferenceResponse(self.judge(request))
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def judge(self, request: pb_utils.InferenceRequest) -> list[pb_utils.Tensor]:
        """Compute the outputs that the request asks for.

        Raises:
            ValueError: an unknown release, distance maps or a mask of other shapes than its calibration's, a mask
                that is missing or that its thresholds were not fitted with, or a parameter of another form.
        """
        parameters = json.loads(request.parameters() or "{}")
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        release_ids = inputs["release_id"]
        calibration = self.calibration(int(release_ids[0, 0]))
        distances = [inputs[f"distance_{stage}"] for stage in (1, 2, 3)]
        foreground = inputs.get("foreground")
        check_foreground(calibration, given=foreground is not None)
        anomaly_map = map_fusion.fuse_distances(distances, calibration.fusion)
        verdict = map_fusion.judge(
            map_fusion.remove_background(anomaly_map, foreground),
            calibration,
            requested_threshold(parameters),
        )
        outputs = {**vars(verdict), "release_id": release_ids}
        requested = set(request.requested_output_names())
        if wants_score_only(parameters):
            requested -= set(map_fusion.MAP_OUTPUTS)
        return [pb_utils.Tensor(name, outputs[name]) for name in requested]

    def calibration(self, release_id: int) -> Calibration:
        """The calibration of a release, read once.

        Raises:
            ValueError: it was never published, or its file is damaged.
        """
        if release_id not in self.calibrations:
            path = self.calibration_dir / f"{release_id}.json"
            try:
                self.calibrations[release_id] = Calibration.load(path)
            except FileNotFoundError:
                raise ValueError(
                    f"release {release_id} has no calibration at {path}; publish the release again"
                ) from None
        return self.calibrations[release_id]


def build_matrices(calibration: Calibration) -> None:
    """Fuse maps of zeros, so that a release's first request finds its fusion matrices built."""
    sides = [calibration.image_size // stride for stride in (4, 8, 16)]
    map_fusion.fuse_distances([np.zeros((1, side, side), np.float32) for side in sides], calibration.fusion)


def check_foreground(calibration: Calibration, *, given: bool) -> None:
    """Thresholds hold for maps with the background or for maps without it, never for both.

    Raises:
        ValueError: the release needs a mask and there is none, or the other way round.
    """
    needed = calibration.foreground != "none"
    if needed and not given:
        raise ValueError(
            f"release {calibration.release_id} was calibrated with foreground {calibration.foreground!r}, but its "
            "ensemble gives no foreground mask; publish the release again"
        )
    if given and not needed:
        raise ValueError(
            f"release {calibration.release_id} was calibrated with the background, but its ensemble gives a "
            "foreground mask; publish the release again"
        )


def requested_threshold(parameters: dict[str, Any]) -> float | None:
    """The image threshold that a request's parameters ask for, if any.

    Raises:
        ValueError: it is no number.
    """
    value = parameters.get("threshold")
    try:
        return None if value is None else float(value)
    except ValueError:
        raise ValueError(f"request parameter threshold is {value!r}; expected a number") from None


def wants_score_only(parameters: dict[str, Any]) -> bool:
    """Whether a request's parameters say that no maps are wanted.

    Not the requested outputs: an ensemble asks its steps for all of them, whatever it is asked for itself.

    Raises:
        ValueError: it is neither true nor false.
    """
    value = parameters.get("score_only", False)
    if not isinstance(value, bool):
        raise ValueError(f"request parameter score_only is {value!r}; expected true or false")
    return value
