"""The training run on tiny networks: it learns, it repeats itself, it does nothing twice."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import CATEGORY, TINY_OPTIONS, FitTiny
from train.checkpoint.header import read_header, read_release_id
from train.checkpoint.tensors import load_checkpoint
from train.data.category import CategoryData, read_category
from train.errors import CheckpointError, ConfigError, DataError, StorageError
from train.fitting import features
from train.fitting.features import batch_indices
from train.fitting.preparation import learning_rate_factor
from train.method.pretrained_weights import random_weights
from train.runs import fit_category
from train.support.devices import Runtime


@pytest.fixture
def own_data(tiny_data: CategoryData, tmp_path: Path) -> CategoryData:
    """A copy of the training images to change."""
    root = tmp_path / "data" / CATEGORY
    shutil.copytree(tiny_data.root / "train", root / "train")
    return read_category(root, dataset="folder", category=CATEGORY)


def run(
    data: CategoryData, run_dir: Path, *, preset: str | None = None, force: bool = False, **asked: Any
) -> bool:
    return fit_category(
        data,
        preset=preset,
        overrides=asked,
        run_dir=run_dir,
        runtime=Runtime("cpu"),
        force=force,
    )


def logged(run_dir: Path, tag: str) -> list[float]:
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]


def test_the_same_seed_gives_the_same_release_and_another_seed_another(
    tiny_data: CategoryData, tiny_checkpoint: Path, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    again = fit_tiny(tiny_data, tmp_path / "again")
    assert read_release_id(again) == read_release_id(tiny_checkpoint)
    other = fit_tiny(tiny_data, tmp_path / "other", seed=1)
    assert read_release_id(other) != read_release_id(tiny_checkpoint)


def test_the_loss_falls_and_is_logged(tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path) -> None:
    checkpoint = fit_tiny(tiny_data, tmp_path, steps=60)
    losses = logged(tmp_path, "loss/train")
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert read_header(checkpoint).provenance.final_loss == pytest.approx(np.mean(losses[-10:]), abs=1e-5)
    assert max(logged(tmp_path, "learning_rate")) <= 1e-3


def test_a_new_run_leaves_no_events_of_the_one_before(
    tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    fit_tiny(tiny_data, tmp_path, steps=5)
    fit_tiny(tiny_data, tmp_path, steps=3)
    assert len(logged(tmp_path, "loss/train")) == 3
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_the_teacher_is_frozen_and_the_student_is_not(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    for backbone, name, frozen in (
        (checkpoint.teacher, TINY_OPTIONS["teacher"], True),
        (checkpoint.student.backbone, TINY_OPTIONS["student"], False),
    ):
        started = random_weights(name, seed=0).state
        trained = backbone.body.model.state_dict()
        unchanged = [torch.equal(tensor, started[key]) for key, tensor in trained.items()]
        assert all(unchanged) if frozen else not all(unchanged)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batchnorm_keeps_its_statistics(
    frozen: bool, tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(fit_tiny(tiny_data, tmp_path, freeze_batchnorm=frozen))
    started = random_weights(TINY_OPTIONS["student"], seed=0).state
    trained = checkpoint.student.backbone.body.model.state_dict()
    statistics = [name for name in trained if name.endswith(("running_mean", "running_var"))]
    assert len(statistics) > 10
    assert all(torch.equal(trained[name], started[name]) == frozen for name in statistics)
    scales = [name.replace("running_mean", "weight") for name in statistics if "running_mean" in name]
    assert not all(torch.equal(trained[name], started[name]) for name in scales)  # they are learned still


def test_features_in_a_file_give_the_same_release(
    tiny_data: CategoryData,
    tiny_checkpoint: Path,
    fit_tiny: FitTiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "MEMORY_SHARE", 0)
    assert read_release_id(fit_tiny(tiny_data, tmp_path)) == read_release_id(tiny_checkpoint)


def test_nothing_is_done_twice(own_data: CategoryData, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    checkpoint_path = run_dir / "checkpoint.safetensors"
    assert run(own_data, run_dir, preset="edge", **TINY_OPTIONS)
    written = checkpoint_path.stat().st_mtime_ns
    assert not run(own_data, run_dir, preset="edge", **TINY_OPTIONS)
    assert not run(own_data, run_dir, **TINY_OPTIONS)
    assert checkpoint_path.stat().st_mtime_ns == written


def test_a_checkpoint_that_cannot_be_read_is_kept_unless_forced(
    own_data: CategoryData, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(b"somebody's work")
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        run(own_data, tmp_path, preset="edge", **TINY_OPTIONS)
    assert checkpoint.read_bytes() == b"somebody's work"
    assert run(own_data, tmp_path, preset="edge", force=True, **TINY_OPTIONS)


def test_fewer_images_than_a_batch_are_refused(
    own_data: CategoryData, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    old_checkpoint = Path(shutil.copy(tiny_checkpoint, run_dir))
    before = old_checkpoint.read_bytes()
    sentence = (
        r"'pill' has 14 good images to train on, 2 held out; expected at least one batch of 15; add 1 more, or "
        r"train smaller batches: python -m train fit --category pill --batch-size 14 and"
    )
    with pytest.raises(DataError, match=sentence):
        run(own_data, run_dir, force=True, **(TINY_OPTIONS | {"batch_size": 15}))
    assert old_checkpoint.read_bytes() == before
    assert list(run_dir.iterdir()) == [old_checkpoint]


def test_a_gpu_whose_memory_is_full_is_told_with_a_remedy(
    own_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    monkeypatch.setattr("train.fitting.loop.masked_regeneration_loss", full)
    with pytest.raises(
        ConfigError,
        match=r"^The memory does not suffice \(CUDA out of memory\); lower --batch-size or --image-",
    ):
        run(own_data, tmp_path, **TINY_OPTIONS)


def test_a_folder_that_cannot_be_written_is_told_before_the_teacher_runs(
    own_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").write_text("a file in the place of the folder")
    monkeypatch.setattr(features.Backbone, "forward", lambda *_: pytest.fail("the teacher ran"))
    with pytest.raises(
        StorageError, match=r"pill cannot be written \(.*\); make room or choose another folder"
    ):
        run(own_data, tmp_path / "runs" / "pill", **TINY_OPTIONS)


def test_faulty_options_are_told_even_when_up_to_date(own_data: CategoryData, tmp_path: Path) -> None:
    run(own_data, tmp_path, **TINY_OPTIONS)
    with pytest.raises(ConfigError, match="mask_ratio"):
        run(own_data, tmp_path, mask_ratio=2.0)


def test_broken_images_are_counted_in_the_checkpoint(own_data: CategoryData, tmp_path: Path) -> None:
    own_data.train_good[0].write_bytes(b"no image")
    run(own_data, tmp_path, **TINY_OPTIONS)
    provenance = read_header(tmp_path / "checkpoint.safetensors").provenance
    assert (provenance.n_train, provenance.n_held_out, provenance.n_broken) == (13, 2, 1)


def test_schedules_by_hand() -> None:
    assert {learning_rate_factor(step, n_steps=100, schedule="constant") for step in range(100)} == {1.0}

    def cosine(step: int) -> float:
        return learning_rate_factor(step, n_steps=100, schedule="cosine")

    assert cosine(0) == pytest.approx(1 / 20)
    assert cosine(9) == pytest.approx(0.5 * 0.5 * (1 + math.cos(0.09 * math.pi)))
    assert cosine(50) == pytest.approx(0.5)
    assert cosine(100) == pytest.approx(0)
    falling = [cosine(step) for step in range(20, 101)]
    assert falling == sorted(falling, reverse=True)


def test_an_epoch_ends_with_its_smaller_rest_where_it_is_kept() -> None:
    batches = batch_indices(10, batch_size=4, seed=0, drop_last=False)
    epochs = [[next(batches).tolist() for _ in range(3)] for _ in range(2)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [4, 4, 2]
        assert sorted(index for batch in epoch for index in batch) == list(range(10))
    assert epochs[0] != epochs[1]
    # Fewer images than a batch are one batch.
    alone = batch_indices(3, batch_size=4, seed=0, drop_last=False)
    assert [sorted(next(alone).tolist()) for _ in range(2)] == [[0, 1, 2]] * 2


def test_a_run_that_keeps_the_smaller_rest_has_its_steps(
    tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    """14 images in batches of 4: two epochs are 8 steps, not 6; a batch may be larger than the images are many."""
    asked = {"steps": None, "epochs": 2, "drop_last": False}
    assert read_header(fit_tiny(tiny_data, tmp_path / "4", **asked)).provenance.steps == 8
    alone = fit_tiny(tiny_data, tmp_path / "15", batch_size=15, **asked)
    assert read_header(alone).provenance.steps == 2


def test_batches_cover_an_epoch_in_a_new_order_each_time() -> None:
    batches = batch_indices(10, batch_size=3, seed=0)
    epochs = [[next(batches) for _ in range(3)] for _ in range(2)]
    for epoch in epochs:
        seen = np.concatenate(epoch)
        assert len(set(seen.tolist())) == 9  # the tenth is left out
        assert set(seen.tolist()) <= set(range(10))
    assert np.concatenate(epochs[0]).tolist() != np.concatenate(epochs[1]).tolist()
    again = batch_indices(10, batch_size=3, seed=0)
    assert all(np.array_equal(batch, next(again)) for epoch in epochs for batch in epoch)
