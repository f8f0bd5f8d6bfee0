"""Steps that are looked at together are the same steps, and a bad one among them is told and undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY_OPTIONS
from tests.train.fitting.test_not_finite import at_step, overflow_adam, saved_state, spoil_the_forward_pass
from tests.train.fitting.test_resume import signal, signal_at
from train.checkpoint.header import read_header, read_release_id
from train.config import fit_config
from train.data.category import CategoryData
from train.errors import TrainingError
from train.fitting import loop
from train.fitting.fit import fit
from train.fitting.gpu.late_looks import STEPS_BETWEEN_LOOKS, BeforeSteps, steps_between_looks
from train.fitting.preparation import initial_state
from train.fitting.resume import ResumeFile, TrainingState, arrays_of
from train.method.student import build_teacher_and_student
from train.support.devices import Runtime

EVERY = 5


def run(data: CategoryData, run_dir: Path, **overrides: Any) -> Path:
    config = fit_config("edge", TINY_OPTIONS | {"steps": 13, "freeze_batchnorm": False} | overrides)
    checkpoint = run_dir / "checkpoint.safetensors"
    fit(data, config=config, checkpoint_path=checkpoint, runtime=Runtime("cpu"))
    return checkpoint


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "steps_between_looks", lambda _: EVERY)


def test_a_gpu_is_waited_for_once_in_many_steps_and_a_cpu_at_each() -> None:
    assert steps_between_looks(torch.device("cuda", 1)) == STEPS_BETWEEN_LOOKS > 1
    assert steps_between_looks(torch.device("cpu")) == 1


@pytest.mark.parametrize("options", [{}, {"mixed_precision": "float16", "validation_interval": 0}])
def test_the_run_is_the_same(
    options: dict[str, Any], tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, thresholds, and each step's row of losses, validations among them."""
    asked = {"validation_interval": 3} | options
    each = run(tiny_data, tmp_path / "each", **asked)
    monkeypatch.setattr(loop, "steps_between_looks", lambda _: EVERY)
    late = run(tiny_data, tmp_path / "late", **asked)
    assert read_release_id(late) == read_release_id(each)
    assert read_header(late).provenance.final_loss == read_header(each).provenance.final_loss
    rows, expected = (path.with_name("losses.csv").read_text() for path in (late, each))
    assert rows == expected
    assert len(rows.splitlines()) == 1 + 13


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (spoil_the_forward_pass, "The loss is nan at step 3, on the batch "),
        (overflow_adam, "The norm of the gradient is "),
    ],
)
def test_the_state_before_faulty_steps_is_kept_whole(
    change: Any, sentence: str, tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks after steps 2 and 4 (validations), so that the fault at step 3 undoes step 2 and 3."""
    asked = {"validation_interval": 2, "schedule": "constant"}
    faulty, sound = tmp_path / "faulty", tmp_path / "sound"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "steps_between_looks", lambda _: EVERY)
        at_step(patch, change)
        with pytest.raises(TrainingError) as caught:
            run(tiny_data, faulty, **asked)
    assert caught.value.message.startswith(sentence)
    assert f"; the state 1 steps before that one is in {faulty / 'resume.pt'}" in caught.value.message
    named = [name for name in (path.name for path in tiny_data.train_good) if name in caught.value.message]
    assert len(named) == TINY_OPTIONS["batch_size"]
    monkeypatch.setattr(ResumeFile, "remove", lambda _: None)
    run(tiny_data, sound, **asked, steps=2)
    kept, expected = saved_state(faulty), saved_state(sound)
    assert kept["step"] == expected["step"] == 2
    assert kept["recent_losses"] == expected["recent_losses"]
    assert torch.equal(kept["mask_generator"], expected["mask_generator"])
    arrays, expected_arrays = arrays_of(kept), arrays_of(expected)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected_arrays[name], err_msg=name)
    assert len((faulty / "losses.csv").read_text().splitlines()) == 1 + 2


@pytest.mark.usefixtures("late")
def test_a_fault_before_the_first_look_goes_back_to_the_start(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, spoil_the_forward_pass)
    with pytest.raises(TrainingError, match=r"at step 3, .*; the state 3 steps before that one is in "):
        run(tiny_data, tmp_path, validation_interval=0)
    kept = saved_state(tmp_path)
    assert (kept["step"], kept["recent_losses"], kept["optimizer"]["state"]) == (0, [], {})


@pytest.mark.usefixtures("late")
def test_ctrl_c_is_seen_after_the_step_and_the_run_goes_on(tiny_data: CategoryData, tmp_path: Path) -> None:
    options = {"validation_interval": 2}
    with signal_at(4, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        run(tiny_data, tmp_path / "stopped", **options)
    assert saved_state(tmp_path / "stopped")["step"] == 4
    stopped, whole = (run(tiny_data, tmp_path / name, **options) for name in ("stopped", "whole"))
    assert read_release_id(stopped) == read_release_id(whole)


def test_everything_that_a_step_changes_comes_back(device: torch.device) -> None:
    config = fit_config("edge", TINY_OPTIONS | {"freeze_batchnorm": False})
    _, student, _ = build_teacher_and_student(config, weights_dir=None)
    state = initial_state(student.to(device).train(), config=config, n_steps=10, device=device)

    def step(state: TrainingState) -> None:
        image = torch.full((2, 64, 64, 3), 90, dtype=torch.uint8, device=device)
        torch.rand(3, generator=state.mask_generator, device=device)
        loop.take_step(state, torch.stack([f.square().mean() for f in state.student(image)]).sum())

    def content() -> dict[str, Any]:
        kept = state.state_dict()
        return {
            **{key: array.copy() for key, array in arrays_of(kept).items()},
            "masks": kept["mask_generator"].numpy().copy(),
            "rate": state.optimizer.param_groups[0]["lr"],
            "schedule": state.scheduler.last_epoch,
            "step": state.step,
        }

    before = BeforeSteps(state)
    for n_steps in (2, 1, 2):  # at first Adam has no moments
        before.keep()
        expected = content()
        for _ in range(n_steps):
            step(state)
        changed = content()
        assert any(not np.array_equal(changed[key], value) for key, value in expected.items())
        before.restore()
        restored = content()
        assert restored.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(restored[key], value, err_msg=key)
        step(state)
