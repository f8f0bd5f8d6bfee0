"""What the fusion hands to the server's metrics, without a server; `tests/test_verdict_metrics.py` asks a real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model_repository.distance_fusion.verdict_metrics import Judged, VerdictMetrics, own_repository
from tests.products import ROOT

USUAL = {"least": 1.0, "low": 1.5, "median": 2.0, "high": 3.0, "most": 3.5}
CALIBRATION = "astmfr_calibration_score"


class Server:
    """Keeps metrics as tritonserver does: each series by its labels, for as long as somebody holds it."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}
        self.said: list[str] = []
        self.utils = SimpleNamespace(
            MetricFamily=SimpleNamespace(COUNTER=1, GAUGE=2, HISTOGRAM=3),
            Logger=SimpleNamespace(log_warn=self.said.append),
        )
        kinds = vars(self.utils.MetricFamily)
        self.utils.MetricFamily = lambda **family: SimpleNamespace(
            Metric=lambda **metric: self.metric(family["name"], metric["labels"])
        )
        vars(self.utils.MetricFamily).update(kinds)

    def metric(self, name: str, labels: dict[str, str]) -> Any:
        key = (name, *labels.values())

        def add(value: float) -> None:
            self.values[key] = self.values.get(key, 0) + value

        def put(value: float) -> None:
            self.values[key] = value

        return SimpleNamespace(increment=add, observe=put, set=put)

    def calibration(self, release_id: int) -> dict[str, float]:
        """What is told of a release of pill, by quantile."""
        return {
            key[3]: value
            for key, value in self.values.items()
            if key[:3] == (CALIBRATION, "pill", str(release_id))
        }


@pytest.fixture
def judged(tmp_path: Path) -> Callable[[int], Server]:
    """What a server has after one image of pill, judged by a release, over the repository `tmp_path`."""

    def judge(release_id: int) -> Server:
        server = Server()
        metrics = VerdictMetrics(server.utils, tmp_path)
        metrics.note([Judged("pill", release_id, rejected=True, score_over_threshold=1.5)])
        metrics.close()
        for name in ("inspected_total", "rejected_total"):
            assert server.values[f"astmfr_{name}", "pill", str(release_id)] == 1
        return server

    return judge


def write_record(
    repository: Path, number: int, release_id: int, *, threshold: float = 4.0, usual: Any = USUAL
) -> Path:
    """What the fusion reads of a record."""
    folder = repository / ".releases" / "records" / "pill"
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "release_id": release_id,
        "calibration": {"image_threshold": threshold},
        "manifest": {
            "release_id": 0,
            "provenance": {} if usual is None else {"usual_scores": {"score": usual}},
        },
    }
    path = folder / f"{number}.json"
    path.write_text(json.dumps(record))
    return path


def test_what_the_calibrations_images_scored_is_told_over_the_threshold(
    tmp_path: Path, judged: Callable[[int], Server]
) -> None:
    write_record(tmp_path, 1, 11)
    write_record(tmp_path, 2, 12, threshold=8.0)  # the same weights, tuned anew
    expected = {"0": 0.25, "0.05": 0.375, "0.5": 0.5, "0.95": 0.75, "1": 0.875}
    assert judged(11).calibration(11) == expected
    assert judged(12).calibration(12) == {quantile: value / 2 for quantile, value in expected.items()}


@pytest.mark.parametrize("release_id", [11, 12, 13])
def test_a_release_that_does_not_say_is_counted_in_silence(
    tmp_path: Path, judged: Callable[[int], Server], release_id: int
) -> None:
    """Of before the records, of before its checkpoint said so, with a threshold that nothing can be measured by."""
    write_record(tmp_path, 1, 12, usual=None)
    write_record(tmp_path, 2, 13, threshold=0.0)
    server = judged(release_id)
    assert server.calibration(release_id) == {}
    assert server.said == []


@pytest.mark.parametrize("damage", ['{"release_id": 11', "[11]", '{"release_id": 11}', "[" * 100_000 + "11"])
def test_a_damaged_record_is_told_and_the_verdicts_are_counted(
    tmp_path: Path, judged: Callable[[int], Server], damage: str
) -> None:
    write_record(tmp_path, 1, 11).write_text(damage)
    server = judged(11)
    assert server.calibration(11) == {}
    (said,) = server.said
    assert "'pill'" in said
    assert "`python -m deploy check` names it." in said


def test_scores_that_are_not_finite_are_told_and_not_shown(
    tmp_path: Path, judged: Callable[[int], Server]
) -> None:
    write_record(tmp_path, 1, 11, usual={**USUAL, "most": float("nan")})
    server = judged(11)
    assert server.calibration(11) == {}
    assert "1.json holds scores that are not finite" in server.said[0]


def test_the_repository_is_found_from_a_version_of_the_fusion_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_repository() == ROOT / "model_repository"
    published = "/srv/models/distance_fusion/12/verdict_metrics.py"
    monkeypatch.setitem(own_repository.__globals__, "__file__", published)
    assert own_repository() == Path("/srv/models")


def test_what_came_together_is_counted_in_one_step_and_each_score_is_observed(tmp_path: Path) -> None:
    server = Server()
    asked: list[tuple[str, float]] = []
    metric = server.metric

    def noted(name: str, labels: dict[str, str]) -> Any:
        made = metric(name, labels)

        def count(value: float) -> None:
            asked.append((name, value))
            made.increment(value)

        return SimpleNamespace(increment=count, observe=count, set=made.set)

    server.metric = noted  # type: ignore[method-assign]
    metrics = VerdictMetrics(server.utils, tmp_path)
    for number in range(10):
        metrics.note([Judged("pill", 11, number == 3, number / 10), Judged("nut", 12, True, None)])
    metrics.close()
    counts = {key[:2]: value for key, value in server.values.items() if key[0] != "astmfr_score"}
    assert counts == {
        ("astmfr_inspected_total", "pill"): 10,
        ("astmfr_rejected_total", "pill"): 1,
        ("astmfr_inspected_total", "nut"): 10,
        ("astmfr_rejected_total", "nut"): 10,
    }
    assert [value for name, value in asked if name == "astmfr_score"] == [number / 10 for number in range(10)]
    assert len([name for name, _ in asked if name != "astmfr_score"]) <= 8  # of two times at most


def test_a_server_that_keeps_no_metrics_any_more_is_told_once_and_fails_no_verdict(tmp_path: Path) -> None:
    server = Server()

    def refuse(name: str, labels: dict[str, str]) -> Any:
        raise RuntimeError("no room")

    server.metric = refuse  # type: ignore[method-assign]
    metrics = VerdictMetrics(server.utils, tmp_path)
    metrics.note([Judged("pill", 11, True, 1.5)])
    metrics.close()
    metrics.note([Judged("pill", 11, True, 1.5)])
    assert server.said == ["No more metrics of verdicts (RuntimeError: no room)."]
