"""The queues of steps as `export plan` shows them and publishing writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from tritonclient.grpc import model_config_pb2 as pb

from export.__main__ import main
from export.errors import PublishError
from export.manifest import read_manifest
from export.releases.repository import Repository
from export.serving.backbones import Platform
from export.serving.service_times import time_steps
from tests.conftest import CATEGORY
from tests.products import copy_backends
from tests.tiny_products import publish_tiny

STATED = {"decoder": 2.0, "teacher": 4.0, "student": 3.0, "fusion": 1.0}  # ms: 10 in all


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copy_backends(tmp_path / "models")


def test_a_request_may_state_how_long_it_waits(tiny_build: Path, repository: Path) -> None:
    publish_tiny(tiny_build / CATEGORY, repository)
    for model in ("image_decoder_64", "teacher_test_resnet_64", "pill_student", "distance_fusion"):
        config = Repository(repository).read_config(model)
        assert config is not None
        assert config.dynamic_batching == pb.ModelDynamicBatching(
            default_queue_policy=pb.ModelQueuePolicy(
                max_queue_size=64,
                default_timeout_microseconds=3_600_000_000,
                allow_timeout_override=True,
            ),
            preferred_batch_size=[1] if model == "image_decoder_64" else [],
        )


def test_steps_are_timed_where_nothing_is_stated(tiny_build: Path) -> None:
    manifest = read_manifest(tiny_build / CATEGORY)
    times_ms = time_steps(tiny_build / CATEGORY, manifest, Platform(), stated_ms={"teacher": 5.0})
    assert times_ms["teacher"] == 5
    assert list(times_ms) == ["decoder", "teacher", "student", "fusion"]
    assert all(took > 0.3 for took in times_ms.values())  # the way there and back alone is that
    with pytest.raises(PublishError, match="pill has no step pupil; expected --service-ms of decoder, teach"):
        time_steps(tiny_build / CATEGORY, manifest, Platform(), stated_ms={"pupil": 1.0})


def test_plan_shows_what_would_be_written_and_writes_nothing(tiny_build: Path, repository: Path) -> None:
    before = sorted(repository.rglob("*"))
    options = ["--category", CATEGORY, "--build-dir", str(tiny_build), "--repository", str(repository)]
    stated = [argument for step, ms in STATED.items() for argument in ("--service-ms", f"{step}={ms}")]
    wide = {"COLUMNS": "200"}
    result = CliRunner(env=wide).invoke(main, ["plan", *options, *stated])
    assert result.exit_code == 0, result.output
    lines = {line.split("│")[1].strip(): line for line in result.output.splitlines() if line.startswith("│")}
    cells = [cell.strip() for cell in lines["pill_student"].strip("│").split("│")]
    features = 4 * (32 * 16 * 16 + 48 * 8 * 8 + 192 * 4 * 4)
    distances = 4 * (16 * 16 + 8 * 8 + 4 * 4)
    assert cells[1] == "2"
    assert cells[3:] == ["64", "8", "3.0", f"{64 * 64 * 3 + features:,}", f"{distances + 8:,}"]
    assert "a file" in lines["image_decoder_64"]
    assert [cell.strip() for cell in lines["all"].strip("│").split("│")][4:6] == ["", "10.0"]
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
