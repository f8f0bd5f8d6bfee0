"""losses.csv: what is written is read back, and an interruption leaves no trace in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import CATEGORY, FitTiny
from train.checkpoint.header import read_header
from train.data.category import CategoryData
from train.errors import StorageError
from train.fitting.losses import LOSSES_FILE, append_losses, begin_losses, read_losses


def write_steps(path: Path, steps: range) -> None:
    for step in steps:
        validation_loss = 2.5 - step / 7 if step % 2 else None
        append_losses(
            path,
            step=step,
            train_loss=3 - step / 7,
            learning_rate=1e-3 / (step + 1),
            validation_loss=validation_loss,
        )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / LOSSES_FILE
    begin_losses(path, first_step=0)
    assert read_losses(path) is None  # no step yet
    write_steps(path, range(4))
    assert path.read_text().splitlines()[:3] == [
        "step,train_loss,learning_rate,validation_loss",
        "0,3,0.001,",
        "1,2.85714286,0.0005,2.35714286",
    ]
    losses = read_losses(path)
    assert losses is not None
    assert losses.step.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(losses.train_loss, 3 - np.arange(4) / 7, rtol=1e-8)
    np.testing.assert_allclose(losses.learning_rate, 1e-3 / np.arange(1, 5), rtol=1e-8)
    np.testing.assert_allclose(losses.validation_loss, [np.nan, 2.5 - 1 / 7, np.nan, 2.5 - 3 / 7], rtol=1e-8)


def test_a_run_without_the_file_has_no_losses(tmp_path: Path) -> None:
    assert read_losses(tmp_path / LOSSES_FILE) is None


@pytest.mark.parametrize("cut_short", ["", "7,2.0", "7,2.0,0.0"])
def test_a_resumed_run_ends_with_the_file_of_an_uninterrupted_one(cut_short: str, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole.csv", tmp_path / "resumed.csv"
    begin_losses(whole, first_step=0)
    write_steps(whole, range(12))
    begin_losses(resumed, first_step=0)
    write_steps(resumed, range(7))
    with resumed.open("a") as file:
        file.write(cut_short)  # killed while it wrote
    losses = read_losses(resumed)
    assert losses is not None
    assert losses.step[-1] == 6
    begin_losses(resumed, first_step=5)  # the last saved state was two steps back
    write_steps(resumed, range(5, 12))
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_new_run_drops_the_losses_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / LOSSES_FILE
    begin_losses(path, first_step=0)
    write_steps(path, range(4))
    begin_losses(path, first_step=0)
    assert read_losses(path) is None


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=rf"{tmp_path} cannot be written .*; make room and start the run again"
    ):
        write_steps(tmp_path, range(1))


def test_a_real_run_logs_every_step_and_its_validations(
    tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    fit_tiny(tiny_data, tmp_path / CATEGORY, steps=5, validation_interval=2)
    losses = read_losses(tmp_path / CATEGORY / LOSSES_FILE)
    assert losses is not None
    assert losses.step.tolist() == list(range(5))
    history = read_header(tmp_path / CATEGORY / "checkpoint.safetensors").provenance
    assert read_losses(tmp_path / CATEGORY / LOSSES_FILE, history) is not None
    begin_losses(tmp_path / CATEGORY / LOSSES_FILE, first_step=4)  # a later run, interrupted
    assert read_losses(tmp_path / CATEGORY / LOSSES_FILE, history) is None
    assert (losses.train_loss > 0).all()
    assert np.isfinite(losses.validation_loss).tolist() == [False, True, False, True, False]
