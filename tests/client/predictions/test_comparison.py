"""Figures of two judges, or of two test sets, do not stand side by side as if they were one's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.core.errors import ClientError
from client.predictions.comparison import JudgeId, judge_of, read_metrics, require_one_judge
from client.predictions.prediction import Prediction
from tests.client.samples import RELEASE, make_metrics, make_prediction

METRICS = Path("runs/pill/metrics.json")
FIRST, SECOND = make_prediction("a.png"), make_prediction("b.png")


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (JudgeId("screw", 7), f"is of 'screw', release 7; the predictions are of 'pill', release {RELEASE}."),
        (JudgeId("pill", 7), f"is of 'pill', release 7; the predictions are of 'pill', release {RELEASE}."),
    ],
)  # fmt: skip
def test_figures_of_another_judge_are_refused(other: JudgeId, found: str) -> None:
    with pytest.raises(ClientError) as caught:
        require_one_judge([FIRST, SECOND], others={METRICS: other})
    assert caught.value.message == f"{METRICS} {found} Measure again what is served, or leave the file out."


def test_figures_of_the_same_judge_are_taken() -> None:
    require_one_judge([FIRST, SECOND], others={METRICS: judge_of(make_metrics())})
    require_one_judge([], others={METRICS: judge_of(make_metrics())})


@pytest.mark.parametrize(
    ("predictions", "reason"),
    [
        ([FIRST, replace(SECOND, category="screw")], "are of several categories, pill, screw"),
        ([FIRST, SECOND, FIRST], r"1 images stand among the predictions twice, a\.png for one"),
    ],
)
def test_predictions_that_do_not_belong_together_are_refused(
    predictions: Sequence[Prediction], reason: str
) -> None:
    with pytest.raises(ClientError, match=reason):
        require_one_judge(predictions, others={})


def test_metrics_beside_two_releases_are_refused() -> None:
    switched = [FIRST, replace(SECOND, release_id=RELEASE - 1)]
    require_one_judge(switched, others={})
    with pytest.raises(ClientError, match=f"release {RELEASE - 1} and 'pill', release {RELEASE}"):
        require_one_judge(switched, others={METRICS: JudgeId("pill", RELEASE)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_auroc": float("nan")}, "image_auroc is nan"),
        ({"image_auroc": "high"}, "image_auroc is 'high'"),
        ({"n_train": True}, "n_train is True"),
        ({"release_id": None}, "release_id is None"),
    ],
)
def test_impossible_metrics_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(make_metrics() | change))
    with pytest.raises(ClientError, match=rf"holds no metrics \({reason}\)"):
        read_metrics(path)


@pytest.mark.parametrize("missing", ["category", "release_id", "n_train", "image_auroc"])
def test_metrics_that_do_not_say_whose_they_are_are_refused(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "metrics.json"
    metrics = make_metrics()
    del metrics[missing]
    path.write_text(json.dumps(metrics))
    with pytest.raises(ClientError, match=f"'{missing}' is missing"):
        read_metrics(path)


def test_metrics_with_another_foreground_than_the_servers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(make_metrics() | {"foreground": "none", "foreground_of_release": "none"}))
    assert read_metrics(path)["foreground"] == "none"
    path.write_text(json.dumps(make_metrics() | {"foreground": "threshold", "foreground_of_release": "none"}))
    with pytest.raises(
        ClientError,
        match=r"was measured with --foreground threshold, and the release is served with none\. Evaluate",
    ):
        read_metrics(path)
