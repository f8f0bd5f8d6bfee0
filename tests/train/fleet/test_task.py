"""What a task runs, what it passes over, and what it says; the commands themselves are stand-ins here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from train.fleet import task
from train.fleet.alike import own_look
from train.fleet.board import Report, Result
from train.fleet.bundle import pack, put_in_place, unpack
from train.fleet.code import RECORD, read_record
from train.fleet.plan import Job

CODE = own_look(())["code"]
OLD = dict.fromkeys(CODE, "0" * 12)


class Commands:
    """Stands in for `run_command`: writes what a stage makes, and is up to date the next time."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str | None]] = []
        self.environment: Mapping[str, str] = {}
        self.fails_at: dict[str, bytes] = {}
        self.old_build = False

    def __call__(
        self,
        arguments: Sequence[str],
        *,
        output: IO[bytes],
        errors: IO[bytes],
        environment: Mapping[str, str],
        watch: Callable[[], None],
    ) -> int:
        options = dict(argument.partition("=")[::2] for argument in arguments if "=" in argument)
        category, verb = options["--category"], arguments[2]
        forced = arguments[-1] if arguments[-1] in ("--force", "--replace") else None
        self.ran.append((verb, forced))
        self.environment = environment
        watch()
        if verb in self.fails_at:
            errors.write(self.fails_at[verb])
            return 1
        run = Path(options["--runs-dir"]) / category
        made = {
            "fit": run / "checkpoint.safetensors",
            "evaluate": run / "metrics.json",
            "onnx": Path(options.get("--build-dir", "")) / category / "student.onnx",
        }[verb]
        if made.exists() and forced != "--force" and not (verb == "onnx" and self.old_build):
            output.write(b"Up to date: " + str(made).encode())
            return 0
        if verb == "fit":
            self.old_build = made.exists()
            for name in (RECORD, "metrics.json"):
                (run / name).unlink(missing_ok=True)  # these go to earlier/ with the run
        if verb == "onnx":
            self.old_build = False
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(json.dumps({"image_auroc": 0.75}))
        errors.write(
            b"Reading \xe2\x94\x81\xe2\x94\x81 1/1\nSkipped: a.png is broken\n\nTrained and judged on x\n"
        )
        return 0


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    stand_in = Commands()
    monkeypatch.setattr(task, "run_command", stand_in)
    return stand_in


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """On a node that shares the folders."""
    made = Job(
        category="cap",
        runs_dir=tmp_path / "runs",
        build_dir=tmp_path / "build",
        commands={"fit": ("train", "fit"), "evaluate": ("train", "evaluate"), "export": ("export", "onnx")},
        expected=own_look(()),
        paths=(),
        token=".token",
        threads=3,
        force=False,
    )
    for path in made.tokens:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return made


def changed(job: Job, **fields: Any) -> Job:
    return Job(**{**job.__dict__, **fields})


def run(job: Job, carried: bytes | None = None) -> tuple[Result, bytes | None]:
    reports: list[Report] = []
    result, files = task.run_category(job, carried, node="press-1", attempt=0, report=reports.append)
    assert all(report["node"] == "press-1" for report in reports)
    return result, files


def test_a_second_run_makes_nothing(job: Job, commands: Commands) -> None:
    first, files = run(job)
    assert (first["made"], first["fault"], first["auroc"], files) == (
        ["fit", "evaluate", "export"],
        "",
        0.75,
        None,
    )
    assert first["told"] == ["Skipped: a.png is broken"]
    assert commands.environment["OMP_NUM_THREADS"] == "3"
    assert read_record(job.runs_dir / "cap") == CODE
    stages: list[str] = []
    second, _ = task.run_category(
        job, None, node="press-1", attempt=0, report=lambda report: stages.append(report["stage"])
    )
    assert set(stages) == {"check"}
    assert (second["made"], second["other_code"], second["unknown_code"]) == ([], [], False)


def test_other_code_is_told_and_made_anew_when_that_is_asked_for(job: Job, commands: Commands) -> None:
    run(job)
    (job.runs_dir / "cap" / RECORD).write_text(json.dumps({"code": {**CODE, "fit": "0" * 12}}))
    told, _ = run(job)
    assert (told["made"], told["other_code"], told["fault"]) == ([], ["fit"], "")
    commands.ran.clear()
    forced = changed(job, force=True)
    anew, _ = run(forced)
    assert commands.ran[0] == ("fit", "--force")
    assert anew["made"] == ["fit", "evaluate", "export"]
    commands.ran.clear()
    again, _ = run(forced)
    assert (again["made"], commands.ran[0]) == ([], ("fit", "--replace"))


def test_what_single_commands_made_does_not_say_by_which_code(job: Job, commands: Commands) -> None:
    run(job)
    (job.runs_dir / "cap" / RECORD).unlink()
    result, _ = run(job)
    assert (result["made"], result["other_code"], result["unknown_code"]) == ([], [], True)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (b"Warning: odd\nError: cap has no images; put some there.\n", "cap has no images; put some there."),
        (b"Traceback\n  line\nValueError: odd\n", "python -m train evaluate ended with status 1: ValueError: odd"),
        (b"", "python -m train evaluate ended with status 1"),
    ],
)  # fmt: skip
def test_a_stage_that_fails_ends_the_task_with_its_sentence(
    said: bytes, fault: str, job: Job, commands: Commands
) -> None:
    commands.fails_at = {"evaluate": said}
    result, _ = run(job)
    assert (result["made"], result["fault"]) == (["fit"], fault)
    assert said.decode() in result["log"]
    assert [verb for verb, _ in commands.ran] == ["fit", "evaluate"]


def test_a_node_that_joined_later_and_differs_runs_nothing(job: Job, commands: Commands) -> None:
    other = changed(job, expected={**job.expected, "code": OLD})
    assert "All nodes need the driver's versions and code, and node press-1 has" in run(other)[0]["fault"]
    lacking = changed(job, paths=("/data/line",))
    assert "There is no /data/line on node press-1" in run(lacking)[0]["fault"]
    assert commands.ran == []


def test_files_travel_where_folders_are_not_shared(job: Job, commands: Commands, tmp_path: Path) -> None:
    for path in job.tokens:
        path.unlink()
    run_dir, build = job.runs_dir / "cap", job.build_dir / "cap"
    folders = {"runs_dir": job.runs_dir, "build_dir": job.build_dir}
    result, files = run(job, pack("cap", **folders))
    assert files is not None
    assert not run_dir.exists()  # nothing is there before it is whole
    put_in_place(files, "cap", result["made"], **folders)
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "checkpoint.safetensors",
        RECORD,
        "metrics.json",
    ]
    assert [path.name for path in build.iterdir()] == ["student.onnx"]
    again, nothing = run(job, pack("cap", **folders))
    assert (again["made"], nothing) == ([], None)

    (run_dir / "checkpoint.safetensors").write_text("before")
    (run_dir / RECORD).write_text(json.dumps({"code": OLD}))
    anew, files = run(changed(job, force=True), pack("cap", **folders))
    assert files is not None
    put_in_place(files, "cap", anew["made"], **folders)
    (kept,) = run_dir.glob("earlier/*/cap")
    assert (kept / "checkpoint.safetensors").read_text() == "before"
    assert read_record(kept) == OLD
    assert read_record(run_dir) == CODE
    assert not list(tmp_path.rglob(".arrived*"))


def test_an_archive_writes_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "runs" / "cap").mkdir(parents=True)
    (tmp_path / "runs" / "cap" / "checkpoint.safetensors").symlink_to("/etc/hostname")
    packed = pack("cap", runs_dir=tmp_path / "runs", build_dir=tmp_path / "build")
    with pytest.raises(Exception, match="absolute"):
        unpack(packed, tmp_path / "there")


def test_steps_are_counted_in_what_the_loop_writes_down(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    assert task.steps_done(path) == 0
    path.write_text("step,train_loss,learning_rate,validation_loss\n")
    assert task.steps_done(path) == 0
    path.write_text(
        "step,train_loss,learning_rate,validation_loss\n" + "".join(f"{n},0.5,0.001,\n" for n in range(99))
    )
    assert task.steps_done(path) == 99
