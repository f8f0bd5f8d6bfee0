"""Batches that fill a GPU, instances of the fusion from the images a second that were stated, and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.errors import PublishError
from export.releases.plan import plan_table
from export.releases.publish import publish_category
from export.releases.repository import Repository, parameters_of
from export.serving import throughput
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from export.serving.throughput import (
    FusionLoad,
    chosen_batch,
    fusion_instances,
    measure_load,
    queue_size,
    remarks,
)
from model_repository.distance_fusion.map_fusion import Calibration
from tests.conftest import CATEGORY
from tests.products import copy_as, copy_backends


@pytest.fixture
def pill(tiny_build: Path) -> Path:
    return tiny_build / CATEGORY


@pytest.mark.parametrize(
    ("image_size", "on_gpu", "engines", "batch"),
    [
        (256, False, (), 8),
        (64, False, (), 8),
        (256, True, (), 32),
        (128, True, (), 128),
        (64, True, (), 128),  # as many as a step takes
        (512, True, (), 8),
        (1024, True, (), 8),
        (256, True, (8, 16), 8),  # as many as both engines take
    ],
)
def test_a_gpu_is_given_batches_that_fill_it(
    image_size: int, on_gpu: bool, engines: tuple[int, ...], batch: int
) -> None:
    assert chosen_batch(image_size, on_gpu=on_gpu, engine_batches=engines) == batch


def test_queues_hold_whole_batches_of_the_step_before() -> None:
    assert [queue_size(batch) for batch in (1, 8, 16, 32, 128)] == [64, 64, 64, 128, 512]


def test_instances_by_hand() -> None:
    assert fusion_instances([]) == 2
    assert fusion_instances([FusionLoad(100, 0.1)]) == 2
    assert fusion_instances([FusionLoad(3000, 2.2), FusionLoad(500, 1.1)]) == 4


def test_a_load_reads_back_from_what_it_wrote() -> None:
    load = FusionLoad(3000, 1.375)
    assert FusionLoad.from_parameters(load.to_parameters()) == load
    assert FusionLoad.from_parameters({}) is None
    for wrong in ("many", "nan", "-1", "inf"):
        with pytest.raises(
            PublishError, match=f"fusion_processes '{wrong}'; expected a number of at least 0"
        ):
            FusionLoad.from_parameters({"images_per_s": "1", "fusion_processes": wrong})


def test_a_load_is_measured_and_in_proportion(pill: Path) -> None:
    calibration = Calibration.load(pill / "calibration.json")
    load = measure_load(1000, calibration)
    assert load.images_per_s == 1000
    # The way into the process alone takes 0.0375 ms an image.
    assert 1.25 * 1000 * 0.3 / 8 / 1000 < load.processes < 10


def test_what_is_said_of_a_large_gpu() -> None:
    said = remarks(
        fusion=8, cores=4, batch=32, image_bytes=349_201, backbones=2, on_gpu=True, engine_batch=None
    )
    assert said == [
        "the fusion has 8 instances for the images that were stated, and this machine 4 cores: it will not keep up",
        "Triton starts 2 instances of each backbone on every GPU that it sees, and every other step on the CPU alone",
        "an answer of 32 images with maps has 11 MiB; a gRPC client that is not ours takes 4 unless its limit is "
        "raised",
        "the fusion's processes may take 85 MiB of /dev/shm, where a container has 64 unless started with --shm-size",
    ]
    assert remarks(
        fusion=2, cores=2, batch=8, image_bytes=349_201, backbones=2, on_gpu=False, engine_batch=None
    ) == []  # fmt: skip
    assert "the engines take batches of 8" in remarks(
        fusion=2, cores=2, batch=8, image_bytes=1, backbones=2, on_gpu=True, engine_batch=8
    )[1]  # fmt: skip


def publish(build: Path, repository: Path, platform: Platform, images_per_s: float | None = None) -> str:
    return publish_category(
        build,
        repository=repository,
        platform=platform,
        read_graph=read_onnx_file,
        images_per_s=images_per_s,
    )


def instances(repository: Path, model: str = "distance_fusion") -> int:
    config = Repository(repository).read_config(model)
    assert config is not None
    return sum(group.count for group in config.instance_group)


def test_all_categories_share_the_fusions_instances(
    pill: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "export.releases.plan.measure_load", lambda rate, calibration: FusionLoad(rate, rate / 1000)
    )
    repository = copy_backends(tmp_path / "models")
    nut = copy_as(pill, tmp_path / "builds" / "nut")
    publish(pill, repository, Platform(), 2500)
    assert instances(repository) == 3
    publish(nut, repository, Platform(), 1200)
    assert instances(repository) == 4  # 2.5 and 1.2 processes, each category counted once
    publish(nut, repository, Platform())
    assert instances(repository) == 3
    ensemble = Repository(repository).read_config(CATEGORY)
    assert ensemble is not None
    assert parameters_of(ensemble)["images_per_s"] == "2500"


def test_what_was_timed_stays_while_nothing_changes(pill: Path, tmp_path: Path) -> None:
    repository = copy_backends(tmp_path / "models")
    assert publish(pill, repository, Platform(), 500).startswith("Published")
    assert publish(pill, repository, Platform(), 500).startswith("Up to date")
    assert publish(pill, repository, Platform(), 600).startswith("Published")
    ensemble = Repository(repository).read_config(CATEGORY)
    assert ensemble is not None
    assert parameters_of(ensemble)["images_per_s"] == "600"


def test_a_gpus_batches_and_queues_reach_every_step(pill: Path, tmp_path: Path) -> None:
    repository = copy_backends(tmp_path / "models")
    line = publish(pill, repository, Platform("onnxruntime", "cuda", max_batch_size=0))
    assert "on every GPU that it sees, and every other step on the CPU alone" in line
    for model in ("teacher_test_resnet_64", "pill_student", "distance_fusion", "image_decoder_64"):
        config = Repository(repository).read_config(model)
        assert config is not None
        assert config.max_batch_size == 128  # of 64 px
        assert config.dynamic_batching.default_queue_policy.max_queue_size == 512


def test_a_later_category_leaves_shared_steps_the_queues_that_an_earlier_one_needs(
    pill: Path, tmp_path: Path
) -> None:
    repository = copy_backends(tmp_path / "models")
    publish(pill, repository, Platform(max_batch_size=32))
    assert instances(repository) == 2
    other = copy_as(pill, tmp_path / "builds" / "nut")
    publish(other, repository, Platform(max_batch_size=32))
    publish(pill, repository, Platform(max_batch_size=32))
    fusion = Repository(repository).read_config("distance_fusion")
    assert fusion is not None
    assert fusion.dynamic_batching.default_queue_policy.max_queue_size == 128


def test_the_plan_shows_what_publish_would_write(pill: Path, tmp_path: Path) -> None:
    table = plan_table(
        pill,
        repository=copy_backends(tmp_path / "models"),
        platform=Platform("onnxruntime", "cuda", max_batch_size=0),
        time_steps=lambda *_: {},
        images_per_s=1e6,
    )
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["batch"][1:3] == ["128", "128"]
    assert int(cells["instances"][-1]) > 2
    assert "it will not keep up." in str(table.caption)
    assert json.dumps(str(table.caption)).count("\\n") >= 1


def test_timing_is_on_one_thread(monkeypatch: pytest.MonkeyPatch, pill: Path) -> None:
    limits: list[int] = []
    original = throughput.threadpool_limits

    def limited(threads: int) -> object:
        limits.append(threads)
        return original(threads)

    monkeypatch.setattr(throughput, "threadpool_limits", limited)
    measure_load(1, Calibration.load(pill / "calibration.json"))
    assert limits == [1]
