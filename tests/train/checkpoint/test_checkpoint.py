"""A checkpoint comes back bit for bit, and what is none is refused with its own sentence."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.conftest import CATEGORY
from train.checkpoint.header import calibration_of, read_header, read_release_id
from train.checkpoint.tensors import Checkpoint, load_checkpoint, save_checkpoint, tensors_id
from train.errors import CheckpointError, StorageError


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def path(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copy(tiny_checkpoint, tmp_path / "checkpoint.safetensors"))


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def test_a_header_from_before_steps_were_kept_is_read(checkpoint: Checkpoint, path: Path) -> None:
    metadata = metadata_of(path)
    provenance = json.loads(metadata["provenance"])
    assert provenance.pop("steps") == 2
    save_file(load_file(path), path, metadata=metadata | {"provenance": json.dumps(provenance)})
    assert read_header(path).provenance.steps is None
    assert read_release_id(path) == checkpoint.release_id


def test_round_trip_bit_for_bit(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "again.safetensors"
    returned = save_checkpoint(path, checkpoint)
    again = load_checkpoint(path)
    for ours, theirs in ((checkpoint.teacher, again.teacher), (checkpoint.student, again.student)):
        expected, loaded = ours.state_dict(), theirs.state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert again.config == checkpoint.config
    assert again.provenance == checkpoint.provenance
    assert again.calibration == checkpoint.calibration
    assert returned == again.release_id == checkpoint.release_id == read_release_id(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_counts_of_a_picture_is_kept_and_is_part_of_the_release_alone(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "again.safetensors"
    assert not checkpoint.calibration.picture_only
    only = replace(checkpoint, calibration=replace(checkpoint.calibration, picture_only=True))
    returned = save_checkpoint(path, only)
    again = load_checkpoint(path)
    assert again.calibration.picture_only
    assert returned == again.release_id == read_release_id(path) != checkpoint.release_id
    assert again.weights_id == checkpoint.weights_id


def test_loaded_networks_judge_the_same(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "again", checkpoint)
    again = load_checkpoint(tmp_path / "again")
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8))
    for ours, theirs in ((checkpoint.teacher, again.teacher), (checkpoint.student, again.student)):
        assert not theirs.training
        assert not any(parameter.requires_grad for parameter in theirs.parameters())
        assert all(torch.equal(a, b) for a, b in zip(ours(image), theirs(image), strict=True))


def test_header_tells_the_whole_configuration_and_history(tiny_checkpoint: Path) -> None:
    header = read_header(tiny_checkpoint)
    assert (header.config.teacher, header.config.image_size, header.config.steps) == ("test_resnet", 64, 2)
    assert (header.provenance.category, header.provenance.dataset) == (CATEGORY, "synthetic")
    assert header.provenance.synthetic
    assert (header.provenance.n_train, header.provenance.n_held_out, header.provenance.n_broken) == (14, 2, 0)
    assert header.provenance.weights == {"teacher": "random, seed 0", "student": "random, seed 0"}
    assert metadata_of(tiny_checkpoint).keys() == {"format", "config", "provenance"}


def test_release_id_is_63_bits_and_follows_every_tensor(tiny_checkpoint: Path) -> None:
    tensors, header = load_file(tiny_checkpoint), read_header(tiny_checkpoint)

    def ids(changed: dict[str, Tensor]) -> tuple[int, int]:
        arrays = {name: tensor.numpy() for name, tensor in changed.items()}
        calibration = calibration_of(arrays, header, tiny_checkpoint)
        return calibration.release_id, calibration.weights_id

    release_id, weights_id = ids(tensors)
    assert release_id == read_release_id(tiny_checkpoint)
    release_ids, weights_ids = {release_id}, {weights_id}
    for name in tensors:
        changed = tensors[name].clone()
        changed.view(-1)[0] += 1
        other, other_weights = ids(tensors | {name: changed})
        release_ids.add(other)
        weights_ids.add(other_weights)
        assert (other_weights == weights_id) == name.startswith(
            "calibration."
        )  # but for the foreground, see below
    assert len(release_ids) == len(tensors) + 1
    assert all(0 < value < 2**63 for value in release_ids | weights_ids)
    for name in ("image_threshold", "pixel_threshold", "stage_weights"):
        assert f"calibration.{name}" in tensors


def test_the_weights_id_follows_the_category_and_how_the_background_is_removed(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """A server finds a calibration by it: what has thresholds of its own must not share it."""

    def ids(name: str, category: str, foreground: str, foreground_id: int = 0) -> tuple[int, int]:
        other = replace(
            checkpoint,
            config=checkpoint.config.model_copy(update={"foreground": foreground}),
            provenance=checkpoint.provenance.model_copy(update={"category": category}),
            calibration=replace(checkpoint.calibration, foreground=foreground, foreground_id=foreground_id),
        )
        returned = save_checkpoint(tmp_path / name, other)
        again = load_checkpoint(tmp_path / name)
        assert returned == again.release_id == read_release_id(tmp_path / name)
        return again.release_id, again.weights_id

    same = ids("same", CATEGORY, "none")
    assert same == (checkpoint.release_id, checkpoint.weights_id)
    others = [
        ids("nut", "nut", "none"),
        ids("threshold", CATEGORY, "threshold"),
        ids("sam", CATEGORY, "sam", 1),
        ids("another sam", CATEGORY, "sam", 2),
    ]
    assert len({same, *others}) == len({weights_id for _, weights_id in (same, *others)}) == 5


def test_the_tensors_id_follows_names_types_and_shapes() -> None:
    values = torch.zeros(4)
    variants: list[dict[str, Tensor]] = [
        {"a": values},
        {"b": values},
        {"a": values.int()},
        {"a": values.view(2, 2)},
        {"a": values[:2], "b": values[2:]},
    ]
    assert len({tensors_id(tensors) for tensors in variants}) == len(variants)
    assert tensors_id({"a": values, "b": values + 1}) == tensors_id({"b": values + 1, "a": values})


def truncate(n_bytes: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:n_bytes])  # type: ignore[func-returns-value]


def write_foreign_format(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "pt"})


def write_no_metadata(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path)


def write_other_configuration(path: Path) -> None:
    metadata = metadata_of(path)
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | {"dropout": 0.5})
    save_file(load_file(path), path, metadata=metadata)


def write_json_list(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2) + b"[]")


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "tensors cut": (truncate(1_000_000), r"is truncated \(1,000,000 of [\d,]+ bytes\); remove it and train again"),
    "one byte cut": (truncate(-1), r"is truncated \([\d,]+ of [\d,]+ bytes\)"),
    "header cut": (truncate(100), "is truncated in its header"),
    "three bytes": (truncate(3), r"is truncated \(3 bytes\)"),
    "empty": (truncate(0), r"is truncated \(0 bytes\)"),
    "too long": (lambda path: path.write_bytes(path.read_bytes() + b"more"), "is longer than its header says"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"weight": [0.0] * 100})), "is no safetensors file"),
    "torch": (lambda path: torch.save({"weight": torch.zeros(2)}, path), "is no safetensors file"),
    "text": (lambda path: path.write_text("not a checkpoint at all"), "is no safetensors file"),
    "list": (write_json_list, "is no safetensors file"),
    "foreign": (write_foreign_format, "of format 'pt'; expected 'astmfr-1'"),
    "no metadata": (write_no_metadata, "of format 'unknown'; expected 'astmfr-1'"),
    "other version": (write_other_configuration, "has an unreadable header"),
    "gone": (Path.unlink, "does not exist; make it with `python -m train fit`"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_whole_checkpoint_is_refused(name: str, path: Path) -> None:
    damage, message = DAMAGED[name]
    damage(path)
    for read in (read_header, read_release_id, load_checkpoint):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(path)
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message


@pytest.mark.parametrize("change", ["missing", "foreign", "reshaped"])
def test_other_tensors_than_the_configuration_needs_are_refused(change: str, path: Path) -> None:
    tensors = load_file(path)
    name = "student.generation_blocks.1.first.weight"
    if change == "missing":
        del tensors[name]
    elif change == "reshaped":
        tensors[name] = tensors[name][:1].clone()
    else:
        name = "student.generation_blocks.3.first.weight"
        tensors[name] = torch.zeros(1)
    save_file(tensors, path, metadata=metadata_of(path))
    with pytest.raises(CheckpointError, match=rf"1 of \d+ tensors are missing, foreign .* {name} among them"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("stage_weights", [0.0, 0.0, 0.0]), ("stage_weights", [-1.0, 2.0, 2.0]), ("image_threshold", 1e300)],
)
def test_a_calibration_that_passes_every_part_is_refused(name: str, value: object, path: Path) -> None:
    tensors = load_file(path)
    tensors[f"calibration.{name}"] = torch.tensor(value, dtype=torch.float64)
    save_file(tensors, path, metadata=metadata_of(path))
    with pytest.raises(CheckpointError, match=rf"cannot judge: a calibration holds {name} .*; train again"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name", ["student.generation_blocks.1.first.weight", "teacher.std", "calibration.image_threshold"]
)
def test_tensors_that_are_not_finite_are_refused(name: str, value: float, path: Path) -> None:
    tensors = load_file(path)
    tensors[name].view(-1)[0] = value
    save_file(tensors, path, metadata=metadata_of(path))
    for read in (
        load_checkpoint,
        read_release_id,
    ):  # the second is what an export asks whether it is up to date
        with pytest.raises(
            CheckpointError,
            match=rf"^{path} cannot be judged with: 1 of its \d+ tensors are not finite, {name} among them; remove it",
        ):
            read(path)


def test_tensors_that_are_not_finite_are_not_written(checkpoint: Checkpoint, path: Path) -> None:
    before = path.read_bytes()
    checkpoint.student.backbone.std[:] = np.nan
    with pytest.raises(
        CheckpointError, match=rf"^{path} was not written: 1 of \d+ tensors are not finite, student"
    ):
        save_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_interrupted_write_keeps_the_old_file(
    checkpoint: Checkpoint, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    changed = replace(checkpoint, calibration=replace(checkpoint.calibration, image_threshold=9.0))

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"disk full.*what stood there stays"):
        save_checkpoint(path, changed)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    monkeypatch.undo()
    assert save_checkpoint(path, changed) != checkpoint.release_id
    assert load_checkpoint(path).calibration.image_threshold == 9.0
