"""The steps of a real server come to its verdict, and the stages' shares to its score."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from client import JudgeClient, load_image
from client.__main__ import main
from client.core.errors import AnswerError, NotServed, ServerError
from client.explaining import asking
from client.explaining.asking import TRIES, explain
from client.explaining.shares import score_pixels
from client.explaining.steps import Plan, Step
from deploy.server import TritonServer
from model_repository.distance_fusion.map_fusion import fuse_distances
from tests.client.samples import RELEASE, make_verdict, save_image
from tests.products import CPU, Product, unused_url
from train.method.judging import compute_distances

pytest_plugins = ["tests.serving"]


@pytest.mark.triton
def test_shares_are_those_of_pytorch_and_sum_to_the_score(server: TritonServer, edge: Product) -> None:
    calibration, config = edge.checkpoint.calibration, edge.checkpoint.config
    distances = compute_distances(
        edge.checkpoint.teacher,
        edge.checkpoint.student,
        edge.pixels[:1],
        scale=config.distance_scale,
        device=CPU,
        what="",
    )
    path = edge.data.test[0].path
    with edge.connect(server) as judge:
        verdict = judge.judge(path)
        explanation = explain(judge, load_image(path), name="a.png")
    assert sum(stage.contribution for stage in explanation.stages) == pytest.approx(verdict.score, rel=1e-4)
    assert sum(stage.share for stage in explanation.stages) == pytest.approx(1)
    size = calibration.image_size
    assert explanation.n_score_pixels == max(1, round(calibration.score_share * size**2))
    pixels = score_pixels(edge.expected.anomaly_map[0], float(edge.expected.pred_score[0, 0]))
    for index, stage in enumerate(explanation.stages):
        np.testing.assert_allclose(stage.distances, distances[index][0], atol=2e-3)
        weights = np.where(np.arange(3) == index, calibration.stage_weights, 0)
        alone = fuse_distances(distances, replace(calibration.fusion, stage_weights=tuple(weights)))
        assert stage.contribution == pytest.approx(float(alone[0].ravel()[pixels].mean()), abs=2e-3)
    row, column = divmod(int(edge.expected.anomaly_map[0].argmax()), size)
    assert explanation.maximum.x == int((column + 0.5) * 160 / size)
    assert explanation.maximum.y == int((row + 0.5) * 160 / size)
    usual = edge.checkpoint.provenance.usual_scores
    assert usual is not None
    assert explanation.usual is not None
    assert vars(explanation.usual.score) == vars(usual.score)


@pytest.mark.triton
def test_the_command_writes_a_picture_and_json(server: TritonServer, edge: Product, tmp_path: Path) -> None:
    path, picture = edge.data.test[0].path, tmp_path / "new" / "why.png"
    options = ["--category", edge.name, "--url", server.grpc_url, "--timeout-s", "60"]
    done = CliRunner().invoke(main, ["explain", str(path), *options, "--output", str(picture), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["score"] == pytest.approx(sum(stage["contribution"] for stage in told["stages"]), rel=1e-4)
    sides = [len(stage["distances"]) for stage in told["stages"]]
    assert sides == [edge.checkpoint.config.image_size // stride for stride in (4, 8, 16)]
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
    done = CliRunner().invoke(main, ["explain", str(path), *options])
    assert done.exit_code == 0, done.output
    assert "100.0 %" in done.stdout
    assert f"column {told['maximum']['x']}, row {told['maximum']['y']} of 160 x 160 pixels" in done.stdout


FUSION = Step("distance_fusion", 1, {f"distance_{n}": f"distance_{n}" for n in (1, 2, 3)}, {})
PLAN = Plan([], FUSION)
MAP = np.full((64, 64), 3, np.float32)


class Judge:
    """Stands in for a client of category pill."""

    category, url, bit_depth, image_size, synthetic = "pill", "here:1", 8, 64, False
    keep_aspect = False

    def judge(self, image: Image.Image, *, min_area: int) -> Any:
        return make_verdict(MAP, original_size=image.size)


class FakeSteps:
    """Stands in for the server: what its steps say, the releases that they are of, and the plans that it names."""

    releases: list[int]
    plans: list[Plan]
    score = 3.0

    def __init__(self, _judge: Any, *, shown: str | None) -> None:
        assert shown is None  # these pictures fill what networks see

    def __enter__(self) -> FakeSteps:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def look_up(self) -> tuple[Plan, None]:
        return (self.plans.pop(0) if self.plans else PLAN), None

    def run(self, plan: Plan, _pixels: Any) -> dict[str, Any]:
        if plan is not PLAN:
            raise NotServed("unloaded.")
        return {
            f"distance_{n}": np.ones((1, 64 // s, 64 // s), np.float32) for n, s in enumerate((4, 8, 16), 1)
        }

    def fuse(self, _plan: Plan, _tensors: Any, only: str | None = None) -> dict[str, Any]:
        if only:
            return {"anomaly_map": np.ones((1, 64, 64), np.float32)}
        release = self.releases.pop(0) if self.releases else RELEASE
        return {
            "anomaly_map": MAP[None],
            "pred_score": np.array([[self.score]]),
            "release_id": np.array([[release]]),
        }


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> type[FakeSteps]:
    made = type("Steps", (FakeSteps,), {"releases": [], "plans": []})
    monkeypatch.setattr(asking, "Steps", made)
    return made


def explained() -> Any:
    return explain(cast(JudgeClient, Judge()), Image.new("RGB", (32, 16)), name="a.png")


def test_a_release_that_is_switched_in_between_is_asked_again(steps: type[FakeSteps]) -> None:
    steps.releases = [7]
    assert [stage.share for stage in explained().stages] == pytest.approx([1 / 3] * 3)
    steps.plans = [Plan([], replace(FUSION, version=2))]  # whose models are unloaded by now
    assert explained().maximum.value == 3.0
    steps.releases = [7] * TRIES
    with pytest.raises(
        ServerError, match="'pill' at here:1 was published anew while it was asked, 3 times; ask"
    ):
        explained()


def test_steps_that_do_not_come_to_the_verdict_are_told(steps: type[FakeSteps]) -> None:
    steps.score = 2.5
    with pytest.raises(
        AnswerError, match=r"come to a score of 2\.5, and its ensemble to 3; they are not the ones"
    ):
        explained()


def test_json_and_picture_of_an_image_of_nothing(steps: type[FakeSteps]) -> None:
    values = json.loads(explained().to_json())
    assert values["original_size"] == [32, 16]
    assert values["usual"] is None
    assert values["stages"][2]["distances"] == [[1.0] * 4] * 4
    assert values["defects"][0]["area"] == 32 * 16


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gone.png"], "gone.png cannot be read (No such file or directory); give an image file."),
        (["."], ". cannot be read (Is a directory); give an image file."),
        (["a.png", "--output", "a.png"], "--output a.png is the image itself; give another file."),
        (["a.png", "--output", "."], ". is a folder; give the name of a file."),
        (["a.png"], "No Triton server answers at"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_image(Path("a.png"))
    done = CliRunner().invoke(main, ["explain", *arguments, "--category", "pill", "--url", unused_url()])
    assert done.exit_code == 2
    assert sentence in done.stderr
