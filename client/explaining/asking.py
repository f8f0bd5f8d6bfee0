"""Ask a category's steps one after the other about one image, and the fusion once more for each stage alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from client.core.errors import AnswerError, ServerError
from client.core.verdicts import Verdict
from client.explaining.alignment import as_sent
from client.explaining.explanation import Explanation, Maximum, Stage
from client.explaining.shares import contributions, maximum_of, score_pixels
from client.explaining.steps import DISTANCES, IMAGE, Plan, Step, read_plan
from client.explaining.usual import Usual, read_usual
from client.judging.calls import named_error, retrying
from client.judging.connection import JudgeClient
from model_repository.distance_fusion.fusion_shown import PARAMETER, text_of_boxes
from model_repository.grpc_channel import connect
from model_repository.image_decoder.image_decoding import resize_image
from model_repository.image_decoder.resizing import fitted_part
from model_repository.image_size import NATIVE

Tensors = dict[str, NDArray[Any]]
TRIES = 3  # a release may be switched between two calls
SAME = 1e-3  # of a score: a server that is busy computes it in a batch with others


class Switched(Exception):  # noqa: N818 (no error: it is tried again)
    """Another release was made live between two calls."""


def explain(judge: JudgeClient, image: Image.Image, *, name: str, min_area: int = 0) -> Explanation:
    """Why an image is judged as it is.

    The verdict is the ensemble's; its steps are asked by name, in the versions that it pins, and what they come to is
    compared with it.

    Args:
        judge: the category.
        image: RGB, as `load_image` gives it.
        name: of the image.
        min_area: see `JudgeClient.judge`.

    Raises:
        NotServed: what is served is no ensemble of this project.
        ServerError: the server does not answer, or the steps do not come to the ensemble's verdict.
    """
    with Steps(judge, shown=_box(judge, image)) as steps:
        for _ in range(TRIES):
            try:
                return _explain_once(judge, steps, image, name=name, min_area=min_area)
            except Switched:
                continue
    raise ServerError(
        f"Category {judge.category!r} at {judge.url} was published anew while it was asked, {TRIES} times; ask again."
    )


def _explain_once(
    judge: JudgeClient, steps: Steps, image: Image.Image, *, name: str, min_area: int
) -> Explanation:
    plan, usual = steps.look_up()
    verdict = judge.judge(image, min_area=min_area)
    pixels = resize_image(image, judge.image_size, keep_aspect=judge.keep_aspect)
    try:
        tensors = steps.run(plan, pixels[None])
    except ServerError:  # a version was unloaded, or it takes images of another size by now
        if steps.look_up()[0] != plan:
            raise Switched from None
        raise
    fused = steps.fuse(plan, tensors)
    if int(fused["release_id"].item()) != verdict.release_id or steps.look_up()[0] != plan:
        raise Switched
    _require_same(judge, verdict, float(fused["pred_score"].item()))
    stage_maps = np.stack([steps.fuse(plan, tensors, stage)[plan.anomaly_map][0] for stage in DISTANCES])
    try:
        highest = score_pixels(fused[plan.anomaly_map][0], float(fused["pred_score"].item()))
        added = contributions(stage_maps, fused[plan.anomaly_map][0], highest)
    except ValueError as error:
        raise AnswerError(
            f"Category {judge.category!r} at {judge.url} cannot be explained: {error}."
        ) from None
    total = sum(added)
    rows, columns = _lies(judge, image)

    def seen(distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """The positions that show the image, and not what was filled beside it."""
        stride = len(pixels) // len(distances)
        own = (
            slice((side.start or 0) // stride, side.stop and -(-side.stop // stride))
            for side in (rows, columns)
        )
        return distances[tuple(own)]

    first, second, third = (
        Stage(
            number,
            seen(as_sent(tensors, plan.fusion.inputs[distances])),
            part,
            part / total if total else 0.0,
        )
        for number, (distances, part) in enumerate(zip(DISTANCES, added, strict=True), start=1)
    )
    return Explanation(
        image=name,
        category=judge.category,
        synthetic=judge.synthetic,
        verdict=verdict,
        maximum=Maximum(*maximum_of(verdict.anomaly_map, verdict.original_size)),
        n_score_pixels=len(highest),
        stages=(first, second, third),
        usual=usual,
    )


def _lies(judge: JudgeClient, image: Image.Image) -> tuple[slice, slice]:
    """Rows and columns of what is sent that show the image."""
    if judge.keep_aspect or judge.image_size == NATIVE:
        return fitted_part(image.size, judge.image_size)
    return slice(None), slice(None)


def _box(judge: JudgeClient, image: Image.Image) -> str | None:
    """The same as a request's parameter; None where the image fills what is sent."""
    rows, columns = _lies(judge, image)
    if rows.stop is None:
        return None
    return text_of_boxes(np.array([[rows.start, columns.start, rows.stop, columns.stop]]))


def _require_same(judge: JudgeClient, verdict: Verdict, score: float) -> None:
    """The steps' score is the ensemble's.

    Raises:
        AnswerError: it is not.
    """
    if abs(score - verdict.score) > SAME * max(abs(verdict.score), SAME):
        raise AnswerError(
            f"The steps of {judge.category!r} at {judge.url} come to a score of {score:.6g}, and its ensemble to "
            f"{verdict.score:.6g}; they are not the ones that judge: publish it again."
        )


class Steps:
    """The models of a category's ensemble, asked by name; use it as a context manager.

    Args:
        judge: the category.
        shown: where in the pixels the image lies, as a request's parameter; None where it fills them.
    """

    def __init__(self, judge: JudgeClient, *, shown: str | None = None) -> None:
        self._category, self._url, self._timeout_s = judge.category, judge.url, judge.timeout_s
        self._client = connect(judge.endpoint)
        # The ensemble's verdict is counted already.
        self._parameters = {"probe": True} | ({} if shown is None else {PARAMETER: shown})

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def look_up(self) -> tuple[Plan, Usual | None]:
        """The ensemble's steps, and what its release says of good images."""
        answer: Any = self._call(
            lambda: self._client.get_model_config(self._category, client_timeout=self._timeout_s)
        )
        parameters = {key: str(value.string_value) for key, value in answer.config.parameters.items()}
        return read_plan(answer.config, url=self._url), read_usual(parameters)

    def run(self, plan: Plan, pixels: NDArray[np.uint8]) -> Tensors:
        """All tensors of the ensemble before its fusion, by its own names; pixels [1, H, W, 3]."""
        tensors: Tensors = {IMAGE: pixels}
        for step in plan.before:
            tensors |= self._infer(step, tensors)
        return tensors

    def fuse(self, plan: Plan, tensors: Mapping[str, NDArray[Any]], only: str | None = None) -> Tensors:
        """What the fusion gives; with `only` for one stage's distances, those of the others being 0.

        Background removal multiplies with the same mask, so that the stages alone still sum to the whole.
        """
        muted = {plan.fusion.inputs[name] for name in DISTANCES if only not in (None, name)}
        given = {name: np.zeros_like(value) if name in muted else value for name, value in tensors.items()}
        return self._infer(plan.fusion, given)

    def _infer(self, step: Step, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
        inputs = [_input(own, tensors[name]) for own, name in step.inputs.items()]
        outputs = [grpcclient.InferRequestedOutput(own) for own in step.outputs]
        result: Any = self._call(
            lambda: self._client.infer(
                step.model,
                inputs,
                model_version="" if step.version < 0 else str(step.version),
                outputs=outputs,
                parameters=self._parameters,
                client_timeout=self._timeout_s,
                timeout=max(1, round(1e6 * self._timeout_s)),
            )
        )
        found = {name: result.as_numpy(own) for own, name in step.outputs.items()}
        if missing := [name for name, value in found.items() if value is None]:
            raise AnswerError(
                f"{step.model!r} at {self._url} did not answer {', '.join(missing)}; the server's log may say why."
            )
        return found

    def _call(self, call: Any) -> Any:
        try:
            return retrying(call, url=self._url, timeout_s=self._timeout_s)
        except InferenceServerException as error:
            raise named_error(error, url=self._url, timeout_s=self._timeout_s) from None


def _input(name: str, values: NDArray[Any]) -> grpcclient.InferInput:
    tensor = grpcclient.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    tensor.set_data_from_numpy(np.ascontiguousarray(values))
    return tensor
