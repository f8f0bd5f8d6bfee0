"""A run that is killed goes on where it was and ends with the same weights, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY_OPTIONS, FitTiny
from train.checkpoint.header import read_header, read_release_id
from train.config import fit_config
from train.data.category import CategoryData
from train.errors import StorageError, TrainingError
from train.fitting import fit as fit_module
from train.fitting import good_images
from train.fitting.features import TeacherFeatures
from train.fitting.fit import fit
from train.fitting.interruption import deferred_signals
from train.fitting.losses import LOSSES_FILE
from train.fitting.monitor import Monitor
from train.fitting.preparation import initial_state
from train.fitting.resume import ResumeFile, TrainingState
from train.fitting.unfinished import RESUME_FILE, RunInputs, find_unfinished
from train.method.student import build_teacher_and_student
from train.support.devices import Runtime

STEPS = 240
DEADLINE_S = 120
RUN = """
import sys, torch
from pathlib import Path
from tests.conftest import TINY_OPTIONS
from train.config import fit_config
from train.data.category import read_category
from train.fitting.features import TeacherFeatures
from train.fitting.fit import fit
from train.support.devices import Runtime
root, checkpoint, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
fit(
    read_category(root, dataset="synthetic", category="pill"),
    config=fit_config("edge", TINY_OPTIONS | {"steps": steps, "validation_interval": 7}),
    checkpoint_path=checkpoint, runtime=Runtime("cpu"), save_interval_s=0,
)
"""


def run_of(*, data_fingerprint: str = "images", n_images: int = 16, **overrides: Any) -> RunInputs:
    return RunInputs(
        config=fit_config("edge", TINY_OPTIONS | overrides),
        data_fingerprint=data_fingerprint,
        n_images=n_images,
        n_train=14,
        surroundings={"device": "cpu", "torch": "2.14"},
    )


def resume_file(folder: Path, **changes: Any) -> ResumeFile:
    return ResumeFile(folder / RESUME_FILE, run=run_of(**changes), interval_s=0)


def words(text: str) -> str:
    return " ".join(text.split())


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


def test_the_state_of_another_run_is_kept_and_what_differs_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when an image is added, or an option is changed, and changed back."""
    first = tiny_state()
    first.step = 440
    resume_file(tmp_path).save(first)
    (tmp_path / LOSSES_FILE).write_text("of the first run")
    other = resume_file(tmp_path, n_images=17, data_fingerprint="one more", steps=900, mask_ratio=0.5)
    state = tiny_state()
    other.restore(state)
    assert state.step == 0
    told = words(capsys.readouterr().err)
    for difference in ("16 good images, now 17", "mask_ratio 0.4, now 0.5", "440 steps are now in"):
        assert difference in told
    assert not (tmp_path / RESUME_FILE).exists()
    state.step = 3
    other.save(state)
    (tmp_path / LOSSES_FILE).write_text("of the second run")
    back = tiny_state()
    resume_file(tmp_path).restore(back)
    assert back.step == 440
    assert (tmp_path / LOSSES_FILE).read_text() == "of the first run"
    (beside,) = tmp_path.glob("unfinished-*")
    assert {path.name for path in beside.iterdir()} == {RESUME_FILE, LOSSES_FILE}
    assert (beside / LOSSES_FILE).read_text() == "of the second run"


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({}, ()),
        ({"smoothing_sigma": 1.0, "foreground": "threshold", "preset": "paper"}, ()),
        ({"steps": 3}, ("2 steps, now 3 (the cosine schedule follows from them)",)),
        ({"seed": 4, "mask_ratio": 0.1}, ("mask_ratio 0.4, now 0.1", "seed 0, now 4")),
        ({"data_fingerprint": "changed"}, ("other files among the 16 good images",)),
        ({"data_fingerprint": "fewer", "n_images": 15, "steps": 3}, ("16 good images, now 15",)),
    ],
)
def test_what_keeps_a_run_from_going_on_is_said_in_phrases(
    changes: dict[str, Any], differences: tuple[str, ...], tmp_path: Path
) -> None:
    state = tiny_state()
    state.step = 1
    resume_file(tmp_path).save(state)
    found = find_unfinished(tmp_path / RESUME_FILE)
    assert found is not None
    assert found.step == 1
    assert found.differences(run_of(**changes)) == differences
    # Device and libraries are told where they are known.
    elsewhere = run_of().model_copy(update={"surroundings": {"device": "cuda"}})
    assert found.differences(elsewhere) == ("device cpu, now cuda",)


def test_an_earlier_versions_state_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"run": "a hash", "state": tiny_state().state_dict()}, tmp_path / RESUME_FILE)
    resume_file(tmp_path).restore(tiny_state())
    assert "is of another run (another version of this program), which is kept" in words(
        capsys.readouterr().err
    )
    assert len(list(tmp_path.glob("unfinished-step-0-*/resume.pt"))) == 1


@pytest.mark.parametrize("damage", ["cut", "no scheduler", "another optimizer", "another network", "nan"])
def test_a_damaged_state_is_taken_whole_or_not_at_all(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resume = resume_file(tmp_path)
    trained = tiny_state()
    with torch.no_grad():
        for parameter in trained.student.parameters():
            parameter.add_(1)
    trained.step = 5
    resume.save(trained)
    saved = torch.load(resume.path, weights_only=True)
    if damage == "no scheduler":
        del saved["state"]["scheduler"]
    elif damage == "another optimizer":
        saved["state"]["optimizer"]["param_groups"][0]["params"].pop()
    elif damage == "another network":
        saved["state"]["student"].popitem()
    elif damage == "nan":
        next(iter(saved["state"]["student"].values())).fill_(torch.nan)
    torch.save(saved, resume.path)
    if damage == "cut":
        resume.path.write_bytes(resume.path.read_bytes()[:1000])
    fresh, untouched = tiny_state(), tiny_state().state_dict()
    resume.restore(fresh)
    assert "training starts from the beginning" in words(capsys.readouterr().err)
    state = fresh.state_dict()
    assert state["step"] == 0
    for name, tensor in state["student"].items():
        assert torch.equal(tensor, untouched["student"][name])
    assert torch.equal(state["mask_generator"], untouched["mask_generator"])
    assert state["optimizer"] == untouched["optimizer"]


def test_a_state_that_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / RESUME_FILE).mkdir()
    with pytest.raises(StorageError, match=r"resume\.pt cannot be read \(Is a directory\); make it readable"):
        resume_file(tmp_path).restore(tiny_state())


def test_it_is_saved_no_more_often_than_asked(tmp_path: Path) -> None:
    path = tmp_path / RESUME_FILE
    ResumeFile(path, run=run_of(), interval_s=3600).save_when_due(tiny_state())
    assert not path.exists()
    ResumeFile(path, run=run_of(), interval_s=0).save_when_due(tiny_state())
    assert path.exists()


def train(data: CategoryData, run_dir: Path, **overrides: Any) -> Path:
    """Train without asking what lies in the run's folder."""
    checkpoint_path = run_dir / "checkpoint.safetensors"
    config = fit_config("edge", TINY_OPTIONS | overrides)
    fit(data, config=config, checkpoint_path=checkpoint_path, runtime=Runtime("cpu"))
    return checkpoint_path


@contextmanager
def signal_at(step: int, number: int) -> Iterator[None]:
    """Have a signal arrive while that step is watched."""
    original = Monitor.after_step

    def after_step(self: Monitor, state: TrainingState, student: Any) -> None:
        if state.step == step:
            signal.raise_signal(number)
        original(self, state, student)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Monitor, "after_step", after_step)
        yield


def test_ctrl_c_keeps_what_was_done(
    tiny_data: CategoryData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"steps": 8, "validation_interval": 2}
    with signal_at(3, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        train(tiny_data, tmp_path / "stopped", **options)
    told = words(capsys.readouterr().err)
    assert "Stopping after this step; once more to stop at once." in told
    assert "Stopped after step 3 of 8; the same command goes on from" in told
    assert torch.load(tmp_path / "stopped" / RESUME_FILE, weights_only=True)["state"]["step"] == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    stopped = train(tiny_data, tmp_path / "stopped", **options)
    assert "Going on after step 3" in words(capsys.readouterr().err)
    assert read_release_id(stopped) == read_release_id(train(tiny_data, tmp_path / "whole", **options))


def test_a_signal_that_ends_the_process_waits_for_the_state(tiny_data: CategoryData, tmp_path: Path) -> None:
    class EndedError(Exception):
        pass

    def end(number: int, frame: object) -> None:
        raise EndedError

    before = signal.signal(signal.SIGTERM, end)  # in place of the system's own
    try:
        with signal_at(2, signal.SIGTERM), pytest.raises(EndedError):
            train(tiny_data, tmp_path, steps=8)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert torch.load(tmp_path / RESUME_FILE, weights_only=True)["state"]["step"] == 2


def test_a_second_signal_stops_at_once_and_an_ignored_one_stays_ignored() -> None:
    def twice(number: int) -> None:
        with deferred_signals() as interruption:
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert interruption.asked is None

    with pytest.raises(KeyboardInterrupt):
        twice(signal.SIGINT)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        twice(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_more_steps_at_a_constant_rate_go_on_and_end_as_if_asked_for_at_once(
    tiny_data: CategoryData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with signal_at(3, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        train(tiny_data, tmp_path / "more", steps=5, schedule="constant")
    more = train(tiny_data, tmp_path / "more", steps=8, schedule="constant")
    assert "Going on after step 3" in words(capsys.readouterr().err)
    at_once = train(tiny_data, tmp_path / "whole", steps=8, schedule="constant")
    assert read_release_id(more) == read_release_id(at_once)


def test_a_calibration_that_is_interrupted_costs_no_training(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    options = {"plateau_patience": 1, "validation_interval": 1, "learning_rate": 1e-12, "steps": 50}
    monkeypatch.setattr(fit_module, "calibrate_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_data, tmp_path, **options)
    monkeypatch.undo()
    step = torch.load(tmp_path / RESUME_FILE, weights_only=True)["state"]["step"]
    assert step < 50  # a plateau ended it, and does so again
    assert read_header(train(tiny_data, tmp_path, **options)).provenance.steps == step


def test_seconds_count_batches_saves_and_calibration_and_what_came_before_an_interruption(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock on which features, a batch, a step, a save and the calibration take seconds of their own."""
    clock = {"now": 1000.0}
    monkeypatch.setattr(time, "perf_counter", lambda: clock["now"])

    def lasting(owner: Any, name: str, seconds: float) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = original(*arguments, **options)
            clock["now"] += seconds
            return result

        monkeypatch.setattr(owner, name, call)

    lasting(good_images, "load_images", 1)
    lasting(good_images, "compute_teacher_features", 10)  # of two parts
    lasting(TeacherFeatures, "batch", 100)
    lasting(Monitor, "after_step", 1_000)
    lasting(ResumeFile, "save", 10_000)
    lasting(fit_module, "calibrate_run", 1_000_000)
    config = fit_config("edge", TINY_OPTIONS | {"steps": 5})
    checkpoint = tmp_path / "checkpoint.safetensors"
    with signal_at(3, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        fit(tiny_data, config=config, checkpoint_path=checkpoint, runtime=Runtime("cpu"))
    fit(tiny_data, config=config, checkpoint_path=checkpoint, runtime=Runtime("cpu"))
    # Two processes read images and computed features, five steps, and the save at the end; that of the interruption
    # is after the state was taken.
    assert read_header(checkpoint).provenance.seconds_train == 2 * 21 + 5 * 1_100 + 10_000 + 1_000_000


def test_a_loss_that_is_no_number_names_the_batch_and_keeps_the_state_before(
    tiny_data: CategoryData, tmp_path: Path
) -> None:
    # A learning rate at which the weights explode after some steps.
    config = fit_config("edge", TINY_OPTIONS | {"steps": 200, "schedule": "constant"})
    config = config.model_copy(update={"learning_rate": 1e18})  # far beyond what is taken from a user
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
