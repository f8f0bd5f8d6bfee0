"""What the server answers is a verdict for every image, or an error: never a label that nothing stands behind."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from client.core.errors import AnswerError
from model_repository.image_size import NATIVE
from tests.client.judging.scripted_server import Outputs, Script, grey, scripted_judge


def put(name: str, value: object) -> Callable[[Outputs], None]:
    """Give the last image's first value of an output."""

    def change(outputs: Outputs) -> None:
        outputs[name].reshape(len(outputs[name]), -1)[-1, 0] = value

    return change


def png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, format="PNG")
    return file.getvalue()


def replace(name: str, convert: Callable[[np.ndarray], np.ndarray]) -> Callable[[Outputs], None]:
    def change(outputs: Outputs) -> None:
        outputs[name] = convert(outputs[name])

    return change


FAULTS = {
    "score nan": (put("pred_score", np.nan), "pred_score of image 1 is not finite"),
    "score inf": (put("pred_score", np.inf), "pred_score of image 1 is not finite"),
    "threshold nan": (put("threshold", np.nan), "threshold of image 1 is not finite"),
    "threshold inf": (put("threshold", np.inf), "threshold of image 1 is not finite"),
    "map nan": (put("anomaly_map", np.nan), "anomaly_map of image 1 is not finite"),
    "label": (put("pred_label", True), "pred_label is not what pred_score and threshold come to"),
    "other map": (
        put("anomaly_map", 200.0),
        "pred_score does not lie between the mean and the maximum of anomaly_map",
    ),
    "a row less": (
        replace("pred_score", lambda value: value[:1]),
        "pred_score is FP32 [1, 1], expected FP32 [2, 1]",
    ),
    "a row more": (
        replace("pred_label", lambda value: np.repeat(value, 2, axis=0)),
        "pred_label is BOOL [4, 1], expected BOOL [2, 1]",
    ),
    "another size": (
        replace("anomaly_map", lambda value: value[:, :4, :4]),
        "anomaly_map is FP32 [2, 4, 4], expected FP32 [2, 8, 8]",
    ),
    "another type": (
        replace("pred_label", lambda value: value.astype(np.float32)),
        "pred_label is FP32 [2, 1], expected BOOL [2, 1]",
    ),
    "missing": (lambda outputs: outputs.pop("pred_mask"), "pred_mask is missing"),
}


@pytest.mark.parametrize(("change", "reason"), FAULTS.values(), ids=FAULTS)
def test_what_is_no_verdict_is_an_error(change: Callable[[Outputs], None], reason: str) -> None:
    script = Script()
    with scripted_judge(script) as judge:
        assert [verdict.anomalous for verdict in judge.judge_many([grey(10), grey(20)], batch=2)] == [
            False,
            False,
        ]
        script.change = change
        with pytest.raises(AnswerError) as caught:
            list(judge.judge_many([grey(10), grey(20)], batch=2))
    assert caught.value.message == (
        f"What 'pill' answered is no verdict: {reason}; none of the 2 images is judged. The server's log may say why."
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_of_which_one_value_is_not_finite_is_an_error(value: float) -> None:
    with (
        scripted_judge(Script(change=put("anomaly_map", value))) as judge,
        pytest.raises(AnswerError, match="anomaly_map of image 0 is not finite"),
    ):
        judge.judge(grey(10))


def test_a_map_without_pixels_is_an_error() -> None:
    script = Script(size=NATIVE, change=replace("anomaly_map", lambda value: value[:, :0, :0]))
    with (
        scripted_judge(script) as judge,
        pytest.raises(AnswerError, match="anomaly_map has 0 rows and 0 columns of an image of 40 and 64"),
    ):
        judge.judge(png(40, 64))


@pytest.mark.parametrize("name", ["pred_score", "threshold"])
def test_a_score_alone_is_checked_too(name: str) -> None:
    with (
        scripted_judge(Script(change=put(name, np.nan))) as judge,
        pytest.raises(AnswerError, match=f"{name} of image 0 is not finite; the image is not judged"),
    ):
        judge.score(grey(10))


def test_another_threshold_than_the_one_asked_for_is_an_error() -> None:
    with scripted_judge(Script()) as judge:
        assert judge.score(grey(10), threshold=5).anomalous
    with (
        scripted_judge(Script(change=put("threshold", 100.0))) as judge,
        pytest.raises(AnswerError, match=r"judged with the threshold 100\.0, and 5\.0 was asked for"),
    ):
        judge.score(grey(10), threshold=5)


def test_a_tensor_without_its_bytes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the server's Python backend gives them when it was built against another numpy."""

    class Empty(np.ndarray):
        def tobytes(self, order: object = "C") -> bytes:
            return b""

    with (
        scripted_judge(Script(change=replace("pred_label", lambda value: value.view(Empty)))) as judge,
        pytest.raises(AnswerError, match=r"pred_label \[1, 1\] holds 0 bytes"),
    ):
        judge.judge(grey(10))
