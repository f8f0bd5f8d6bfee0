"""A category's task on a node: fit, evaluate and export it by the project's own commands, one process each."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from train.errors import UserError
from train.fitting.losses import LOSSES_FILE
from train.fleet.alike import own_look, require_alike
from train.fleet.board import Report, Result
from train.fleet.bundle import pack, unpack
from train.fleet.code import STAGES, read_record, write_record
from train.fleet.plan import Job
from train.fleet.processes import run_command
from train.runs.folder import CHECKPOINT, RunFolder
from train.support.files import read_json
from train.support.locks import exclusive
from train.support.temporary import temporary_folder

# A task that is begun again may find its first attempt still at work, whose node is out of reach and not dead.
LOCK_WAIT_S = 60.0
LOCKS = {"fit": "trained", "evaluate": "evaluated"}
SCRATCH_PREFIX = "astmfr-fleet-"
UP_TO_DATE = "Up to date: "
# Of what commands say, lines that a table of many categories goes without: bars, the banner's frame, where images lie.
UNTOLD = re.compile(r".*━|=+$|Trained and judged on |Images: |Stopping after this step")
LONGEST_LOG = 1_000_000  # characters
REPORT_S = 1.0
CHECK_S = 20.0  # a command that finds its work up to date has ended by then
Reporting = Callable[[Report], None]


@dataclass
class Work:
    """What a task is at.

    Attributes:
        job: what it was given.
        runs_dir: where the run lies on this node.
        build_dir: where the build lies on this node.
        made: the stages that were made.
        other_code: the stages that other code made, and that were left.
        unknown_code: whether a stage does not say which code made it.
        told: what the commands warned of and left out.
        log: what the commands have printed.
    """

    job: Job
    runs_dir: Path
    build_dir: Path
    made: list[str] = field(default_factory=list)
    other_code: list[str] = field(default_factory=list)
    unknown_code: bool = False
    told: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def run_dir(self) -> Path:
        """The folder of the category's run."""
        return self.runs_dir / self.job.category


def run_category(
    job: Job, carried: bytes | None, *, node: str, attempt: int, report: Reporting
) -> tuple[Result, bytes | None]:
    """Do what is left to do for a category.

    Args:
        job: what to do.
        carried: its run and builds as the driver has them; None where all nodes share its folders.
        node: this one's name.
        attempt: which beginning of this task this is, from 0.
        report: takes what the task is at.

    Returns:
        What it came to, and the files that were made where this node does not share the driver's folders.
    """
    started = time.monotonic()
    if all(path.exists() for path in job.tokens):
        work = Work(job, job.runs_dir, job.build_dir)
        fault = _try_stages(work, node=node, attempt=attempt, report=report)
        return _result(work, node, fault, started), None
    with temporary_folder(SCRATCH_PREFIX) as scratch:
        work = Work(job, scratch / "runs", scratch / "build")
        if carried is not None:
            unpack(carried, scratch)
        fault = _try_stages(work, node=node, attempt=attempt, report=report)
        made = (
            pack(job.category, runs_dir=work.runs_dir, build_dir=work.build_dir) if work.made else None
        )  # what came before a fault is kept too
        return _result(work, node, fault, started), made


def _try_stages(work: Work, *, node: str, attempt: int, report: Reporting) -> str:
    """Run all stages; return a sentence where one fails, else nothing."""
    job = work.job
    try:
        require_alike(job.expected, {node: own_look(job.paths)})  # of a node that has joined since
        for stage in STAGES:
            follow = _follow(work, stage, node=node, attempt=attempt, report=report)
            if fault := _run_stage(work, stage, follow):
                return fault
    except UserError as error:
        return error.message
    return ""


def _run_stage(work: Work, stage: str, follow: Callable[[], None]) -> str:
    """Run one stage's command unless it is up to date; return a sentence where it fails."""
    job, record = work.job, read_record(work.run_dir)
    made_by = record.get(stage)
    other = made_by is not None and made_by != job.code[stage]
    forced = "--force" if other and job.force else "--replace" if job.force and stage == "fit" else None
    _wait_for_earlier_attempt(work, stage)
    command = job.command(stage, runs_dir=work.runs_dir, build_dir=work.build_dir, forced=forced)
    status, printed, said = _run(command, threads=job.threads, watch=follow)
    work.log += [" ".join(command[1:]), printed, said]
    if status != 0:
        return _fault(said, command, status)
    work.told += [line.strip() for line in said.splitlines() if line.strip() and not UNTOLD.match(line)]
    if printed.startswith(UP_TO_DATE):
        work.other_code += [stage] if other else []
        work.unknown_code |= made_by is None
        return ""
    work.made.append(stage)
    before = {} if stage == "fit" else record  # a new run's measures and build are still to be made
    write_record(work.run_dir, {**before, stage: job.code[stage]})
    return ""


def _run(command: list[str], *, threads: int, watch: Callable[[], None]) -> tuple[int, str, str]:
    """Exit status, and what the command printed and said."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        status = run_command(
            command, output=output, errors=errors, environment=_environment(threads), watch=watch
        )
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return status, texts[0], texts[1]


def _environment(threads: int) -> dict[str, str]:
    """As many threads as the task has cores, lines that are not wrapped, and this very project."""
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys(limits, str(threads)),
        "PYTHONPATH": os.pathsep.join(paths),
        "COLUMNS": "10000",
    }


def _wait_for_earlier_attempt(work: Work, stage: str) -> None:
    """Let a process end that holds the run.

    Raises:
        RunError: it does not, within `LOCK_WAIT_S`.
    """
    path = work.run_dir / f".{LOCKS.get(stage)}.lock"
    if path.exists():
        with exclusive(path, work=LOCKS[stage], wait_s=LOCK_WAIT_S):
            pass


def _follow(work: Work, stage: str, *, node: str, attempt: int, report: Reporting) -> Callable[[], None]:
    """What reports, every second, how far a stage is."""
    run, last, steps, begun = RunFolder(work.run_dir), -REPORT_S, 0, time.monotonic()
    there = not work.made and _is_there(work, stage)

    def follow() -> None:
        nonlocal last, steps
        if time.monotonic() - last < REPORT_S:
            return
        last, step = time.monotonic(), 0
        if stage == "fit":
            step = steps_done(run.unfinished / LOSSES_FILE)
            steps = steps or _steps_of(run)
        checking = there and not step and last - begun < CHECK_S
        at = "check" if checking else stage
        report({"node": node, "attempt": attempt, "stage": at, "step": step, "steps": steps})

    return follow


def _is_there(work: Work, stage: str) -> bool:
    """Whether something was made before, which may be up to date."""
    made = {"fit": work.run_dir / CHECKPOINT, "evaluate": work.run_dir / "metrics.json"}
    return made.get(stage, work.build_dir / work.job.category).exists()


def steps_done(losses: Path) -> int:
    """How many steps a run has written down in its losses.csv; 0 for none."""
    try:
        with losses.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
            line = file.read().splitlines()[-1]
        return int(line.split(b",")[0]) + 1
    except (OSError, ValueError, IndexError):
        return 0


def _steps_of(run: RunFolder) -> int:
    """How many steps the unfinished run will have; 0 where none was begun. Images that are broken are counted."""
    record = run.begun()
    if record is None:
        return 0
    n_images = record.origin.n_images
    n_held_out = min(max(1, round(record.config.holdout_ratio * n_images)), n_images - 1)
    return record.config.total_steps(n_images - n_held_out)


def _fault(said: str, command: Iterable[str], status: int) -> str:
    """The sentence that a command ended with; where it has none, the last line of what it said."""
    lines = [line for line in said.splitlines() if line.strip()]
    sentences = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    if sentences:
        return sentences[-1]
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    last = f": {lines[-1].strip()}" if lines else ""
    return f"python {' '.join(list(command)[:3])} {how}{last}"


def _result(work: Work, node: str, fault: str, started: float) -> Result:
    metrics = None if fault else read_json(work.run_dir / "metrics.json")
    auroc = metrics.get("image_auroc") if isinstance(metrics, dict) else None
    log = "\n".join(work.log)
    return {
        "node": node,
        "made": work.made,
        "fault": fault,
        "auroc": auroc,
        "seconds": time.monotonic() - started,
        "told": list(dict.fromkeys(work.told)),
        "other_code": work.other_code,
        "unknown_code": work.unknown_code,
        "log": log[-LONGEST_LOG:],
    }
