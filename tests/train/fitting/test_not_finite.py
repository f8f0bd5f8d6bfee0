"""Nothing is learned from, saved or judged with values that are no numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import TINY_OPTIONS
from train.config import FitConfig, fit_config
from train.data.category import CategoryData
from train.errors import NotFiniteError, TrainingError
from train.fitting import finite, loop
from train.fitting.fit import fit
from train.fitting.preparation import initial_state
from train.fitting.resume import ResumeFile, arrays_of
from train.fitting.unfinished import RESUME_FILE
from train.method.judging import compute_distances
from train.method.student import Student, build_teacher_and_student
from train.support.devices import Runtime

CONFIG = fit_config(
    "edge",
    TINY_OPTIONS | {"steps": 6, "freeze_batchnorm": False, "validation_interval": 0, "schedule": "constant"},
)
FAULTY_STEP = 3


def run(data: CategoryData, run_dir: Path, config: FitConfig = CONFIG) -> None:
    fit(data, config=config, checkpoint_path=run_dir / "checkpoint.safetensors", runtime=Runtime("cpu"))


def saved_state(run_dir: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run_dir / RESUME_FILE, weights_only=True)["state"]
    return state


def at_step(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Student, Callable[[], Tensor]], Tensor]
) -> None:
    """Have `change` compute the loss of the faulty step; the others are computed as they are."""
    original, steps = loop.masked_regeneration_loss, iter(range(100))

    def loss(student: Student, *arguments: Any, **options: Any) -> Tensor:
        def compute() -> Tensor:
            return original(student, *arguments, **options)

        return change(student, compute) if next(steps) == FAULTY_STEP else compute()

    monkeypatch.setattr(loop, "masked_regeneration_loss", loss)


def spoil_the_forward_pass(student: Student, compute: Callable[[], Tensor]) -> Tensor:
    """Pixels over a deviation of 0: every layer, and BatchNorm's statistics with them, sees what is no number."""
    student.backbone.std.zero_()
    return compute()


def overflow_adam(student: Student, compute: Callable[[], Tensor]) -> Tensor:
    """A finite loss whose gradients are finite, and their squares are not."""
    return compute() * 1e30


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (spoil_the_forward_pass, "The loss is nan at step 3, on the batch "),
        (overflow_adam, "The norm of the gradient is "),
    ],
)
def test_the_state_before_a_faulty_step_is_kept_whole(
    change: Any, sentence: str, tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty, sound = tmp_path / "faulty", tmp_path / "sound"
    with monkeypatch.context() as patch:
        at_step(patch, change)
        with pytest.raises(TrainingError) as caught:
            run(tiny_data, faulty)
    assert caught.value.message.startswith(sentence)
    assert f"; the state before that step is in {faulty / RESUME_FILE}; look at" in caught.value.message
    assert not (faulty / "checkpoint.safetensors").exists()
    # A run that ends with the step before has the same weights, statistics, moments and masks, every bit.
    monkeypatch.setattr(ResumeFile, "remove", lambda _: None)
    run(tiny_data, sound, CONFIG.model_copy(update={"steps": FAULTY_STEP}))
    kept, expected = saved_state(faulty), saved_state(sound)
    assert kept["step"] == expected["step"] == FAULTY_STEP
    assert kept["recent_losses"] == expected["recent_losses"]
    assert torch.equal(kept["mask_generator"], expected["mask_generator"])
    arrays, expected_arrays = arrays_of(kept), arrays_of(expected)
    assert len(arrays) > 100
    for name, array in arrays.items():
        assert np.isfinite(array).all(), name
        np.testing.assert_array_equal(array, expected_arrays[name])


def test_weights_that_are_not_finite_are_never_saved(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil_a_weight(student: Student, compute: Callable[[], Tensor]) -> Tensor:
        loss = compute()
        with torch.no_grad():
            student.generation_blocks[2].second.bias[0] = torch.inf  # type: ignore[union-attr, index, operator]
        return loss

    at_step(monkeypatch, spoil_a_weight)
    config = CONFIG.model_copy(update={"steps": FAULTY_STEP + 1})  # no further loss tells
    with pytest.raises(
        TrainingError,
        match=r"^\d of \d+ tensors of student and Adam are not finite after step 4, "
        r"student\.generation_blocks\.2\.second\.bias among them; nothing of this run had been saved;",
    ):
        run(tiny_data, tmp_path, config)
    assert not (tmp_path / RESUME_FILE).exists()
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_run_that_explodes_in_its_last_step_gives_no_checkpoint(
    tiny_data: CategoryData, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"learning_rate": 1e30, "steps": 1})
    with pytest.raises(NotFiniteError, match=r"student's features at stage 1 of \d+ of \d+ images"):
        run(tiny_data, tmp_path, config)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_loss_scale_that_falls_for_ever_is_told() -> None:
    config = CONFIG.model_copy(update={"mixed_precision": "float16"})
    _, student, _ = build_teacher_and_student(config, weights_dir=None)
    state = initial_state(student, config=config, n_steps=100, device=torch.device("cpu"))

    def train() -> None:
        for _ in range(40):
            weight = next(student.parameters()).sum()
            loop.take_step(state, (weight - weight.detach()).sqrt())  # 0, with an infinite gradient

    with pytest.raises(finite.BadStepError, match="overflows float16, however small its loss scale"):
        train()
    assert 20 < state.step < 40


def test_distances_that_are_no_numbers_are_told_with_their_image() -> None:
    teacher, student, _ = build_teacher_and_student(CONFIG, weights_dir=None)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    arguments: dict[str, Any] = {"scale": 2.0, "device": torch.device("cpu"), "what": "Evaluation"}
    assert len(compute_distances(teacher, student.eval(), images, **arguments)) == 3
    student.generation_blocks[0].second.weight.data.fill_(torch.nan)  # type: ignore[union-attr, operator]
    with pytest.raises(NotFiniteError, match=r"^Evaluation: .* of 3 of 3 images .* those of image 1 first;"):
        compute_distances(teacher, student, images, **arguments)
