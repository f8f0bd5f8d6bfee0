"""Triton Python backend: distance maps in, anomaly map and verdict out.

Calibrations lie outside every model's folder, so that writing one reloads nothing: `.releases/calibrations/` in the
repository holds the live one of each student's weights. A request asks the file's date, and reads it when it changed.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import fusion_shown
import map_fusion
import numpy as np
import triton_python_backend_utils as pb_utils
from fusion_regions import UnjudgeableImageError
from map_fusion import Calibration
from verdict_metrics import Judged, VerdictMetrics

# Warm-up requests carry it; no weights have it (`train.checkpoint.header.weights_id_of` is never 0).
WARM_UP_ID = 0
WARM_UP = Calibration(
    release_id=0,
    category="warm-up",
    image_size=256,
    smoothing_sigma=4.0,
    pool_size=5,
    stage_weights=(1.0, 1.0, 1.0),
    # Below every score: a student that answers with this id passes no part.
    image_threshold=-1.0,
    pixel_threshold=-1.0,
)
LIVE = Path(".releases", "calibrations")  # in the repository; `export.releases.store` writes there


class RequestError(ValueError):
    """A request parameter that cannot be used: the fault of who asked, not of what is served."""


class TritonPythonModel:
    """Fuses distance maps with the calibration that is live for the weights that made them."""

    metrics: VerdictMetrics | None = None  # where the server keeps none

    def initialize(self, args: dict[str, str]) -> None:
        """Find the calibrations and read those that are there."""
        model = Path(args["model_repository"])
        self.code_id = map_fusion.fusion_code_id()
        # Repositories of before: one file a release in the model's own folder.
        self.folders = (model.parent / LIVE, model / "calibrations")
        self.read: dict[int, tuple[object, Calibration]] = {}
        for path in (path for folder in self.folders for path in folder.glob("*.json")):
            try:
                build_matrices(self.calibration(int(path.stem)))
            except ValueError as error:  # told again to those who ask for its weights; the others are served
                pb_utils.Logger.log_warn(f"{path} is passed over: {error}")
        try:
            self.metrics = VerdictMetrics(pb_utils)
        except Exception as error:  # an older server, or one that was told to keep none
            pb_utils.Logger.log_warn(f"Verdicts are not among the metrics ({error}).")

    def finalize(self) -> None:
        """Hand on the last verdicts to the metrics."""
        if self.metrics is not None:
            self.metrics.close()

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request; a fault in one is that one's error alone."""
        return [self.answer(request) for request in requests]

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        """Fuse the maps of one request, whose images were all seen by one student."""
        try:
            return pb_utils.InferenceResponse(self.judge(request))
        except (RequestError, UnjudgeableImageError) as error:
            fault = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
        except ValueError as error:
            fault = pb_utils.TritonError(str(error))
        except Exception as error:  # memory that does not suffice, say; raised, it would fail the whole batch
            fault = pb_utils.TritonError(f"no verdict can be given ({type(error).__name__}: {error})")
        return pb_utils.InferenceResponse(error=fault)

    def judge(self, request: pb_utils.InferenceRequest) -> list[pb_utils.Tensor]:
        """Compute the outputs that the request asks for.

        Raises:
            RequestError: a parameter of another form.
            UnjudgeableImageError: nothing of an image is left, or it has another size than regions are drawn on.
            ValueError: unknown weights, distance maps or a mask of other shapes than its calibration's, a mask
                that is missing or that its thresholds were not fitted with, or an image whose distances are not
                finite; the message names the image.
        """
        parameters = json.loads(request.parameters() or "{}")
        threshold, score_only = requested_threshold(parameters), is_asked(parameters, "score_only")
        probe = is_asked(parameters, "probe")
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        weights_ids = inputs["release_id"]
        if (weights_ids != weights_ids[0]).any():
            raise ValueError(f"one request holds images of weights {sorted(set(weights_ids[:, 0].tolist()))}")
        calibration = self.calibration(int(weights_ids[0, 0]))
        distances = [inputs[f"distance_{stage}"] for stage in (1, 2, 3)]
        check_foreground(calibration, given="foreground" in inputs)
        shown = shown_of(distances, calibration, inputs, parameters)
        distances = fusion_shown.hide_beside(distances, shown)
        foreground = fusion_shown.within_picture(inputs.get("foreground"), shown)
        requested = set(request.requested_output_names())
        verdict: map_fusion.Scores
        if score_only or not requested & set(map_fusion.MAP_OUTPUTS):
            requested -= set(map_fusion.MAP_OUTPUTS)
            verdict = map_fusion.judge_scores(
                distances, calibration, foreground=foreground, threshold=threshold
            )
        else:
            anomaly_map = map_fusion.fuse_distances(distances, calibration.fusion)
            anomaly_map = map_fusion.remove_background(anomaly_map, foreground, calibration.regions)
            verdict = map_fusion.judge(anomaly_map, calibration, threshold)
        if self.metrics is not None and calibration is not WARM_UP and not probe:
            self.metrics.note(judged_images(verdict, calibration))
        outputs = {**vars(verdict), "release_id": np.full_like(weights_ids, calibration.release_id)}
        return [pb_utils.Tensor(name, outputs[name]) for name in requested]

    def calibration(self, weights_id: int) -> Calibration:
        """The live calibration of a student's weights; its `release_id` is that of weights, calibration and this code.

        Raises:
            ValueError: there is none, or its file cannot be read, is damaged or that of other weights.
        """
        if weights_id == WARM_UP_ID:
            return WARM_UP
        path, stamp = self.find(weights_id)
        if weights_id not in self.read or self.read[weights_id][0] != stamp:
            self.read[weights_id] = stamp, self.load(path, weights_id)
        return self.read[weights_id][1]

    def find(self, weights_id: int) -> tuple[Path, object]:
        """The file of a calibration, and what changes when it is replaced."""
        for folder in self.folders:
            path = folder / f"{weights_id}.json"
            try:
                found = os.stat(path)  # noqa: PTH116 (a third of the time of a path's own)
            except OSError:
                continue
            return path, (str(path), found.st_mtime_ns, found.st_ino, found.st_size)
        raise ValueError(
            f"release {weights_id} has no calibration at {self.folders[0] / f'{weights_id}.json'}; publish the release "
            "again"
        )

    def load(self, path: Path, weights_id: int) -> Calibration:
        """Read a calibration, which must be of these weights."""
        remedy = "publish the release again"
        try:
            calibration = Calibration.load(path)
        # JSON that is nested too deeply ends in a RecursionError.
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(
                f"calibration {path} of release {weights_id} cannot be used ({error}); {remedy}"
            ) from None
        # A graph of before names its release, and so does the calibration of that.
        belongs_to = calibration.weights_id or calibration.release_id
        if belongs_to != weights_id:
            raise ValueError(
                f"calibration {path} is of release {belongs_to}; expected {weights_id}; {remedy}"
            )
        if not calibration.weights_id:
            return calibration
        return replace(calibration, release_id=map_fusion.release_id_of(calibration, self.code_id))


def judged_images(verdict: map_fusion.Scores, calibration: Calibration) -> list[Judged]:
    """What the metrics hold of a request's images."""
    own = calibration.image_threshold  # not the request's, with which each would be measured by another
    return [
        Judged(calibration.category, calibration.release_id, rejected, score / own if own > 0 else None)
        for score, rejected in zip(
            verdict.pred_score[:, 0].tolist(), verdict.pred_label[:, 0].tolist(), strict=True
        )
    ]


def build_matrices(calibration: Calibration) -> None:
    """Fuse maps of zeros, so that a release's first request finds its fusion matrices built."""
    if calibration.fusion.is_native:  # images of any size: those of its first are built when that comes
        return
    height, width = calibration.fusion.shape
    shapes = [(1, height // stride, width // stride) for stride in map_fusion.STRIDES]
    map_fusion.fuse_distances([np.zeros(shape, np.float32) for shape in shapes], calibration.fusion)


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


def shown_of(
    distances: list[np.ndarray],
    calibration: Calibration,
    inputs: dict[str, np.ndarray],
    parameters: dict[str, Any],
) -> np.ndarray | None:
    """[B, H, W]: where the maps show the pictures that were sent; None for everywhere, or where all of a map counts.

    The decoder says where it put the picture of a file, and who sends pixels in a parameter; without either, pictures
    fill all of what was sent.

    Raises:
        RequestError: the parameter cannot be used.
    """
    if not calibration.picture_only:
        return None
    shape, count = map_fusion.map_shape(distances, calibration.fusion), len(distances[0])
    boxes, text = inputs.get("shown"), parameters.get(fusion_shown.PARAMETER)
    try:
        if boxes is None and text is not None:
            boxes = fusion_shown.boxes_of_text(text, count)
        return fusion_shown.shown_pixels(boxes, inputs.get("motion"), shape, count)
    except ValueError as error:
        raise RequestError(f"request parameter {error}" if boxes is None else str(error)) from None


def requested_threshold(parameters: dict[str, Any]) -> float | None:
    """The image threshold that a request's parameters ask for, if any.

    Raises:
        RequestError: it is no finite number of at least 0; no score is below 0, and none exceeds infinity.
    """
    value = parameters.get("threshold")
    if value is None:
        return None
    try:
        threshold = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        threshold = math.nan
    if not 0 <= threshold <= map_fusion.LARGEST:
        raise RequestError(
            f"request parameter threshold is {value!r}; expected a number from 0 to {map_fusion.LARGEST:.3g}"
        )
    return threshold


def is_asked(parameters: dict[str, Any], name: str) -> bool:
    """Whether a request's parameters ask for `score_only`, no maps, or for `probe`, a verdict that is not counted.

    `score_only` does not follow from the requested outputs: an ensemble asks its steps for all of them, whatever it is
    asked for itself. `probe` is for images that are no parts: nothing of them is among the metrics.

    Raises:
        RequestError: it is neither true nor false, so that no part is hidden from the metrics by accident.
    """
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"request parameter {name} is {value!r}; expected true or false")
    return value
