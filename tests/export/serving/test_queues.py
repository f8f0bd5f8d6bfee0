"""Queues from a latency budget: by hand, through the repository, and shared by categories."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from tritonclient.grpc import model_config_pb2 as pb

from export.__main__ import main
from export.errors import PublishError
from export.releases.repository import Repository
from export.serving.backbones import Platform
from export.serving.queues import LatencyBudget, QueuePolicy, tightest
from tests.conftest import CATEGORY
from tests.products import copy_as, copy_backends
from tests.tiny_products import publish_tiny

DEFAULT = pb.ModelQueuePolicy(max_queue_size=64)
STATED = {"decoder": 2.0, "teacher": 4.0, "student": 3.0, "fusion": 1.0}  # ms: 10 in all


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copy_backends(tmp_path / "models")


def queue(repository: Path, model: str) -> pb.ModelQueuePolicy:
    config = Repository(repository).read_config(model)
    assert config is not None
    return config.dynamic_batching.default_queue_policy


def test_what_is_left_is_shared_out() -> None:
    # 40 ms are left. Half of them go in equal parts, 5 ms each, and half by what the steps take: 2 ms for each ms.
    # 4 images could be answered in 40 ms, and 64 times as many may come.
    assert LatencyBudget(50, STATED).policies() == {
        "decoder": QueuePolicy(256, 9_000, 1),
        "teacher": QueuePolicy(256, 13_000, 1),
        "student": QueuePolicy(256, 11_000, 1),
        "fusion": QueuePolicy(256, 7_000, 1),
    }


def test_batches_grow_with_the_budget_and_take_a_quarter_of_it_at_most() -> None:
    for budget_ms, batch, queued_ms in ((89.9, 1, 79.9), (90, 2, 60.0), (200, 3, 150.0)):
        policies = LatencyBudget(budget_ms, STATED).policies().values()
        assert {policy.batch for policy in policies} == {batch}
        assert sum(policy.timeout_us for policy in policies) == pytest.approx(1000 * queued_ms, abs=4)
        assert queued_ms >= (budget_ms - 10) * 3 / 4
        assert {policy.size for policy in policies} == {max(256, math.ceil(64 * (budget_ms - 10) / 10))}


def test_one_request_may_always_wait_and_never_for_ever() -> None:
    policies = LatencyBudget(10.0000001, {"teacher": 9.9999, "fusion": 0.0001}).policies()
    assert policies["teacher"].size == 256
    assert policies["teacher"].batch == 1
    assert policies["fusion"].timeout_us == 1  # 0 would be no limit


@pytest.mark.parametrize("budget_ms", [9.0, 10.0])
def test_a_budget_that_leaves_nothing_is_refused(budget_ms: float) -> None:
    sentence = rf"budget of {budget_ms:g} ms leaves nothing to wait: an image takes 10\.0 ms .*teacher 10\.0"
    with pytest.raises(PublishError, match=sentence):
        LatencyBudget(budget_ms, {"teacher": 10.0}).policies()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5.0])
def test_times_that_are_not_finite_are_refused(value: float) -> None:
    for budget in (
        LatencyBudget(value, {"teacher": 10.0}),
        LatencyBudget(50.0, {"teacher": value, "fusion": 1.0}),
    ):
        with pytest.raises(PublishError, match="expected finite times of at least 0"):
            budget.policies()


def test_parameters_read_back_as_the_same_budget() -> None:
    budget = LatencyBudget(12.5, {"teacher": 6.123, "fusion": 1.0})
    assert LatencyBudget.from_parameters(budget.to_parameters()) == budget
    assert LatencyBudget.from_parameters({"preset": "edge"}) is None


@pytest.mark.parametrize(
    "parameters",
    [
        {"latency_budget_ms": "50"},
        {"latency_budget_ms": "fast", "service_ms": "{}"},
        {"latency_budget_ms": "50", "service_ms": "[1]"},
        {"latency_budget_ms": "50", "service_ms": '{"teacher": null}'},
    ],
)
def test_parameters_from_elsewhere_are_told(parameters: dict[str, str]) -> None:
    with pytest.raises(
        PublishError, match=r"A published category has latency_budget_ms .*; publish that category"
    ):
        LatencyBudget.from_parameters(parameters)


def test_a_shared_step_is_as_strict_as_its_strictest_category() -> None:
    slow, fast = LatencyBudget(100, {"teacher": 10.0}), LatencyBudget(25, {"teacher": 10.0, "other": 1.0})
    assert tightest([slow, fast], "teacher") == fast.policies()["teacher"]
    assert tightest([slow, fast], "fusion") == QueuePolicy(64, 0, 0)
    assert tightest([], "teacher") == QueuePolicy(64, 0, 0)


def test_a_budget_reaches_every_step_and_goes_again(tiny_build: Path, repository: Path) -> None:
    publish_tiny(tiny_build / CATEGORY, repository)
    without = (repository / "distance_fusion/config.pbtxt").read_text()
    publish_tiny(tiny_build / CATEGORY, repository, latency_budget_ms=50, service_ms=STATED)
    for model, timeout_us in (
        ("image_decoder_64", 9_000),
        ("teacher_test_resnet_64", 13_000),
        ("pill_student", 11_000),
        ("distance_fusion", 7_000),
    ):
        policy = queue(repository, model)
        assert (policy.max_queue_size, policy.default_timeout_microseconds) == (256, timeout_us), model
        assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
        assert not policy.allow_timeout_override
    for ensemble in ("pill", "pill_encoded"):
        config = Repository(repository).read_config(ensemble)
        assert config is not None
        assert config.parameters["latency_budget_ms"].string_value == "50"
        assert '"pill_student": 3.0' in config.parameters["service_ms"].string_value
    publish_tiny(tiny_build / CATEGORY, repository)
    for model in ("image_decoder_64", "teacher_test_resnet_64", "pill_student", "distance_fusion"):
        assert queue(repository, model) == DEFAULT, model
    assert (repository / "distance_fusion/config.pbtxt").read_text() == without


def test_categories_keep_each_others_budgets(tiny_build: Path, repository: Path, tmp_path: Path) -> None:
    nut = copy_as(tiny_build / CATEGORY, tmp_path / "nut")
    publish_tiny(tiny_build / CATEGORY, repository, latency_budget_ms=50, service_ms=STATED)
    publish_tiny(nut, repository, latency_budget_ms=30, service_ms=STATED)
    teacher = "teacher_test_resnet_64"
    assert queue(repository, teacher).default_timeout_microseconds == 6_500  # of the stricter
    assert queue(repository, "pill_student").default_timeout_microseconds == 11_000  # its own
    publish_tiny(nut, repository)
    assert queue(repository, teacher).default_timeout_microseconds == 13_000
    assert queue(repository, "nut_student") == DEFAULT


def test_what_takes_longer_than_its_budget_is_not_published(tiny_build: Path, repository: Path) -> None:
    before = sorted(repository.rglob("*"))
    with pytest.raises(PublishError, match=r"budget of 0\.001 ms leaves nothing to wait: an image takes \d"):
        publish_tiny(tiny_build / CATEGORY, repository, latency_budget_ms=0.001)
    with pytest.raises(PublishError, match="pill has no step pupil; expected --service-ms of decoder, teach"):
        publish_tiny(tiny_build / CATEGORY, repository, latency_budget_ms=50, service_ms={"pupil": 1.0})
    gpu = Platform("onnxruntime", "cuda")
    with pytest.raises(PublishError, match="How long teacher and student take on the server's GPU cannot be"):
        publish_tiny(tiny_build / CATEGORY, repository, platform=gpu, latency_budget_ms=50)
    assert sorted(repository.rglob("*")) == before


def test_steps_are_timed_where_nothing_is_stated(tiny_build: Path, repository: Path) -> None:
    publish_tiny(tiny_build / CATEGORY, repository, latency_budget_ms=10_000, service_ms={"teacher": 5.0})
    config = Repository(repository).read_config("pill")
    assert config is not None
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    budget = LatencyBudget.from_parameters(parameters)
    assert budget is not None
    assert budget.service_ms["teacher_test_resnet_64"] == 5
    assert set(budget.service_ms) == {
        "image_decoder_64", "teacher_test_resnet_64", "pill_student", "distance_fusion",
    }  # fmt: skip
    assert all(took > 0.3 for took in budget.service_ms.values())  # the way there and back alone is that


def test_plan_shows_what_would_be_written_and_writes_nothing(tiny_build: Path, repository: Path) -> None:
    before = sorted(repository.rglob("*"))
    options = ["--category", CATEGORY, "--build-dir", str(tiny_build), "--repository", str(repository)]
    stated = [argument for step, ms in STATED.items() for argument in ("--service-ms", f"{step}={ms}")]
    wide = {"COLUMNS": "200"}
    result = CliRunner(env=wide).invoke(main, ["plan", *options, *stated, "--latency-budget-ms", "50"])
    assert result.exit_code == 0, result.output
    lines = {line.split("│")[1].strip(): line for line in result.output.splitlines() if line.startswith("│")}
    cells = [cell.strip() for cell in lines["pill_student"].strip("│").split("│")]
    features = 4 * (32 * 16 * 16 + 48 * 8 * 8 + 192 * 4 * 4)
    distances = 4 * (16 * 16 + 8 * 8 + 4 * 4)
    assert cells[1] == "2"
    assert cells[3:] == ["256", "11.0", "1", "3.0", f"{64 * 64 * 3 + features:,}", f"{distances + 8:,}"]
    assert "a file" in lines["image_decoder_64"]
    assert [cell.strip() for cell in lines["all"].strip("│").split("│")][4:7] == ["40.0", "", "10.0"]
    on_gpu = CliRunner(env=wide).invoke(main, ["plan", *options, "--platform", "tensorrt"])
    assert on_gpu.exit_code == 0, on_gpu.output
    assert on_gpu.output.count("not here") == 2
    for threads, cell in (("0", "pool"), ("3", "pool of 3")):
        shared = ["--platform", "onnxruntime", "--threads", threads]
        pool = CliRunner(env=wide).invoke(main, ["plan", *options, *stated, *shared])
        assert pool.output.count(f" {cell} │") == 2, pool.output
    assert sorted(repository.rglob("*")) == before


@pytest.mark.parametrize("given", ["teacher", "teacher=fast", "teacher=-1", "teacher=nan"])
def test_a_time_that_is_none_is_refused(given: str) -> None:
    result = CliRunner().invoke(main, ["plan", "--category", CATEGORY, "--service-ms", given])
    assert result.exit_code == 2
    assert "Invalid value for '--service-ms'" in result.output
