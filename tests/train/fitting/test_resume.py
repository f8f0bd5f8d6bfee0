"""A run that is killed goes on where it was and ends with the same weights, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import TINY_OPTIONS, FitTiny
from train.checkpoint.header import read_header, read_release_id
from train.config import fit_config
from train.data.category import CategoryData
from train.errors import StorageError, TrainingError
from train.fitting.fit import fit
from train.fitting.losses import LOSSES_FILE
from train.fitting.preparation import initial_state
from train.fitting.resume import ResumeFile, TrainingState
from train.method.student import build_teacher_and_student
from train.support.devices import Runtime

STEPS = 60
DEADLINE_S = 120
RUN = """
import sys, torch
from pathlib import Path
from tests.conftest import TINY_OPTIONS
from train.config import fit_config
from train.data.category import read_category
from train.fitting.fit import fit
from train.support.devices import Runtime
root, checkpoint, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
fit(
    read_category(root, dataset="synthetic", category="pill"),
    config=fit_config("edge", TINY_OPTIONS | {"steps": steps, "validation_interval": 7}),
    checkpoint_path=checkpoint, runtime=Runtime("cpu"), save_interval_s=0,
)
"""


def tiny_state() -> TrainingState:
    config = fit_config("edge", TINY_OPTIONS)
    _, student, _ = build_teacher_and_student(config, weights_dir=None)
    return initial_state(student, config=config, n_steps=10, device=torch.device("cpu"))


def start(data: CategoryData, checkpoint: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(data.root), str(checkpoint), str(STEPS)],
        cwd=Path(__file__).resolve().parents[3],
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(
    tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    whole = fit_tiny(tiny_data, tmp_path / "whole", steps=STEPS, validation_interval=7)
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    resume = checkpoint.parent / "resume.pt"
    with start(tiny_data, checkpoint) as process:
        deadline = time.monotonic() + DEADLINE_S
        while not (resume.is_file() and torch.load(resume, weights_only=True)["state"]["step"] > 3):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    stopped_at = torch.load(resume, weights_only=True)["state"]["step"]
    assert 3 < stopped_at < STEPS
    assert not checkpoint.exists()
    with start(tiny_data, checkpoint) as process:
        _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said
    assert f"Going on after step {stopped_at}" in " ".join(said.split())
    assert read_release_id(checkpoint) == read_release_id(whole)  # weights and thresholds, every bit
    assert read_header(checkpoint).provenance.final_loss == read_header(whole).provenance.final_loss
    assert not resume.exists()
    losses, expected_losses = (path.with_name(LOSSES_FILE).read_bytes() for path in (checkpoint, whole))
    assert losses == expected_losses  # no step twice, none missing


def test_a_state_of_another_run_or_a_damaged_one_is_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "resume.pt"
    state = tiny_state()
    state.step = 5
    ResumeFile(path, run="one", interval_s=0).save(state)
    for run, expected in (("one", 5), ("another", 0)):
        fresh = tiny_state()
        ResumeFile(path, run=run, interval_s=0).restore(fresh)
        assert fresh.step == expected
    path.write_bytes(path.read_bytes()[:1000])
    fresh = tiny_state()
    ResumeFile(path, run="one", interval_s=0).restore(fresh)
    assert fresh.step == 0
    assert "is damaged: training starts from the beginning" in " ".join(capsys.readouterr().err.split())


def test_it_is_saved_no_more_often_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    ResumeFile(path, run="one", interval_s=3600).save_when_due(tiny_state())
    assert not path.exists()
    ResumeFile(path, run="one", interval_s=0).save_when_due(tiny_state())
    assert path.exists()


def test_a_loss_that_is_no_number_names_the_batch_and_keeps_the_state_before(
    tiny_data: CategoryData, tmp_path: Path
) -> None:
    # A learning rate at which the weights explode after some steps.
    config = fit_config("edge", TINY_OPTIONS | {"steps": 200, "learning_rate": 1e18, "schedule": "constant"})
    with pytest.raises(
        TrainingError, match=r"The loss is (nan|inf) at step \d+, on the batch .*\.png"
    ) as caught:
        fit(
            tiny_data,
            config=config,
            checkpoint_path=tmp_path / "checkpoint.safetensors",
            runtime=Runtime("cpu"),
        )
    file_names = {path.name for path in tiny_data.train_good}
    named = [word.strip(",;") for word in str(caught.value).split() if word.strip(",;") in file_names]
    assert len(named) == TINY_OPTIONS["batch_size"]
    state = torch.load(tmp_path / "resume.pt", weights_only=True)["state"]
    assert f"at step {state['step']}," in str(caught.value)
    assert np.isfinite(state["recent_losses"]).all()
    assert not (tmp_path / "checkpoint.safetensors").exists()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from train.checkpoint.tensors import load_checkpoint, save_checkpoint
path = Path(sys.argv[1])
checkpoint = load_checkpoint(path)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # the kernel refuses to write more, as on a full disk
save_checkpoint(path, checkpoint)
"""


def test_a_disk_that_is_full_leaves_the_old_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(tiny_checkpoint.read_bytes())
    assert path.stat().st_size > 200_000
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert (
        f"{StorageError.__name__}: {path} cannot be written (File too large); what stood there stays"
        in done.stderr
    )
    assert path.read_bytes() == tiny_checkpoint.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
