"""The ensemble's own configuration says which models are asked, in which version and order."""

from __future__ import annotations

import json

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from client.core.errors import NotServed
from client.explaining.steps import read_plan
from client.explaining.usual import Spread, read_usual
from export.serving.ensembles import ensemble_config, judging_steps

PINNED = {"teacher": ("teacher_x", 3), "student": ("pill_student", 2), "fusion": ("distance_fusion", 5)}


def ensemble(steps: list[pb.ModelEnsembling.Step]) -> pb.ModelConfig:
    return ensemble_config("pill", inputs=[], outputs=[], steps=steps, parameters={}, max_batch_size=4)


@pytest.mark.parametrize("foreground", [None, ("foreground", 1)])
@pytest.mark.parametrize("order", [1, -1])
def test_steps_come_after_those_whose_tensors_they_take(
    foreground: tuple[str, int] | None, order: int
) -> None:
    steps = judging_steps(**PINNED, foreground=foreground)[::order]
    plan = read_plan(ensemble(steps), url="here:1")
    asked = [(step.model, step.version) for step in plan.before]
    assert asked.index(("teacher_x", 3)) < asked.index(("pill_student", 2))
    assert (("foreground", 1) in asked) == (foreground is not None)
    assert (plan.fusion.model, plan.fusion.version) == ("distance_fusion", 5)
    assert plan.fusion.inputs["release_id"] == "student_release_id"


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_another_ensemble_is_refused(left_out: int) -> None:
    steps = judging_steps(**PINNED)
    del steps[left_out]
    with pytest.raises(NotServed, match=r"Model 'pill' at here:1 cannot be explained: expected an ensemble"):
        read_plan(ensemble(steps), url="here:1")


def test_what_good_images_give_is_read_where_a_release_says_it() -> None:
    spread = {"least": 1, "low": 2, "median": 3, "high": 4, "most": 5}
    text = json.dumps({"n_images": 9, "score": spread, "stages": [spread] * 3})
    usual = read_usual({"usual_scores": text})
    assert usual is not None
    assert (usual.n_images, usual.score, len(usual.stages)) == (9, Spread(1, 2, 3, 4, 5), 3)
    for other in (
        {},
        {"usual_scores": "[]"},
        {"usual_scores": text.replace("5", "NaN")},
        {"usual_scores": "{"},
    ):
        assert read_usual(other) is None
