"""What fits into a GPU's memory beside the training, and what is said where it does not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY_OPTIONS
from train.config import fit_config
from train.errors import ConfigError
from train.fitting.gpu import room
from train.fitting.gpu.room import TrainingMemory, keep_features, measure_training, place_of, require_memory
from train.fitting.gpu.stores import RecomputedFeatures
from train.method.student import build_teacher_and_student

GIB = 1 << 30
CONFIG = fit_config("paper", {})


@pytest.mark.parametrize(
    ("on_device", "in_machine", "place", "said"),
    [
        (80 * GIB, 1, "device", "2.5 GiB, are kept on the GPU; 77.5 GiB of its memory are left for the"),
        (
            11 * GIB,
            99 * GIB,
            "pinned",
            "of its memory 11.0 GiB are free, and the training takes about 9.0 GiB.",
        ),
        (
            11 * GIB,
            6 * GIB,
            "recomputed",
            "3.5 GiB of the machine's 6.0 GiB, more than 50%. So the teacher runs",
        ),
    ],
)
def test_features_go_where_they_fit_beside_the_training(
    on_device: int, in_machine: int, place: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [GIB // 2, 2 * GIB]
    if place == "recomputed":
        sizes = [GIB // 2, 3 * GIB // 2, 3 * GIB // 4]  # pinned, they take 0.5, 2 and 1
    chosen = place_of(sizes, free_on_device=on_device, free_in_machine=in_machine, training=9 * GIB)
    assert chosen == place
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_batch_that_would_fit_is_named() -> None:
    need = TrainingMemory(fixed=GIB, an_image=GIB // 4)
    require_memory(need, free=10 * GIB, total=80 * GIB, others=70 * GIB, config=CONFIG)
    with pytest.raises(
        ConfigError,
        match=r"^The GPU's memory does not suffice: training with batches of 32 images of 256 px takes at least "
        r"9\.0 GiB, and 6\.0 GiB of 8\.0 GiB are free; --batch-size 14 would fit\.$",
    ):
        require_memory(need, free=6 * GIB, total=8 * GIB, others=0, config=CONFIG)
    assert need.of_batch(14) <= 6 * GIB < need.of_batch(15)


def test_a_gpu_that_others_use_is_told() -> None:
    need = TrainingMemory(fixed=GIB, an_image=GIB // 4)
    with pytest.raises(
        ConfigError,
        match=r"and 1\.2 GiB of 80\.0 GiB are free, other processes hold 78\.0 GiB \(look at nvidia-smi\); take a "
        r"smaller --image-size or backbone\.$",
    ):
        require_memory(need, free=5 * GIB // 4, total=80 * GIB, others=78 * GIB, config=CONFIG)


def test_measuring_leaves_the_student_as_it_was() -> None:
    config = fit_config("paper", {**TINY_OPTIONS, "epochs": None})  # whose BatchNorm learns statistics
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    taken = iter([300, 500])

    def peak_of(step: Callable[[], None]) -> int:
        step()
        assert any(parameter.grad is not None for parameter in student.parameters())
        return next(taken)

    need = measure_training(
        student, teacher.channels, config=config, device=torch.device("cpu"), peak_of=peak_of
    )
    weights = sum(4 * parameter.numel() for parameter in student.parameters())
    assert need == TrainingMemory(fixed=100 + room.COPIES_OF_WEIGHTS * weights, an_image=100)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())


def test_memory_that_cannot_be_had_after_all_makes_the_teacher_run_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("CUDA error: out of memory")  # as pinned memory is refused

    monkeypatch.setitem(room.STORES, "pinned", full)
    teacher, _, _ = build_teacher_and_student(fit_config("edge", TINY_OPTIONS), weights_dir=None)
    images = np.zeros((3, 64, 64, 3), np.uint8)
    assert isinstance(keep_features("pinned", teacher, images, torch.device("cpu")), RecomputedFeatures)
    assert "cannot be had after all: the teacher runs again" in " ".join(capsys.readouterr().err.split())


def test_the_place_is_chosen_by_what_the_gpu_tells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CPU in a GPU's clothes, of 80 GiB: others hold 30, this process 10, of which 5 come free."""
    for name, answer in (
        ("mem_get_info", (40 * GIB, 80 * GIB)),
        ("memory_reserved", 10 * GIB),
        ("empty_cache", None),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(room, "_peak_on_gpu", lambda step: step() or 1000)
    config = fit_config("edge", TINY_OPTIONS)
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    asked = {"n_images": 16, "config": config, "device": torch.device("cpu")}
    assert room.choose_place(teacher, student, **asked) == "device"
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(
        "The GPU is in use: other processes hold 30.0 GiB of its memory, and share its time."
    )
    assert (
        "are kept on the GPU; 40.0 GiB of its memory are left for the training, which takes about 0.5" in told
    )
