"""Kill -9 at every step of a command: the old or the new release is live, never neither; the next command repairs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.repository import find_models, settle
from export.releases.bundles.contents import checked
from export.releases.changes import STAGING, changing
from export.releases.lock import publishing_alone
from export.releases.record import Record
from export.releases.repository import Repository, parameters_of
from export.releases.store import Store
from export.releases.switch import Served, require_whole
from export.releases.verbs.bundle import bundle_release
from export.releases.verbs.check import check
from export.releases.verbs.promote import promote
from export.releases.verbs.retune import Retuning, retune
from export.releases.verbs.table import releases_of
from model_repository.distance_fusion.map_fusion import Calibration
from tests.conftest import CATEGORY
from tests.export.releases import killing
from tests.export.releases.conftest import TEACHER, publish, with_another_teacher
from tests.export.releases.test_verbs import publish_aside
from tests.products import ROOT


def killed(root: Path, work: Path, name: str, **arguments: Any) -> dict[str, Path]:
    """Copies of a repository in which a command was killed, by the step that it was about to do."""
    given = json.dumps({key: str(value) for key, value in arguments.items()})
    done = subprocess.run(
        [sys.executable, "-m", killing.__name__, name, given, str(root), str(work)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {}
    for copy in sorted(work.iterdir(), key=lambda path: int(path.name)):
        if (copy / "step").is_file():
            step = (copy / "step").read_text().replace(str(copy), "")
            found[f"{copy.name}: {step}"] = copy / "models"
    return found


def versions_of(record: Record) -> set[tuple[str, int]]:
    return {(step.model, step.version) for step in record.steps.values()}


def served_release(root: Path) -> set[int]:
    """The release ids with which a server that starts now would answer; it finds all that it needs."""
    target, served = Repository(root), set()
    records = Store(root).records(CATEGORY)
    for name in (CATEGORY, f"{CATEGORY}_encoded"):
        ensemble = target.read_config(name)
        assert ensemble is not None
        pinned = {(step.model_name, step.model_version) for step in ensemble.ensemble_scheduling.step}
        for model, version in pinned:
            config = target.read_config(model)
            assert config is not None
            assert version in config.version_policy.specific.versions
        release_id = int(parameters_of(ensemble)["release_id"])
        named = [
            record for record in records if record.release_id == release_id and pinned <= versions_of(record)
        ]
        require_whole(target, named[0])
        calibration = Calibration.load(Store(root).calibration_path(named[0].weights_id))
        served |= {release_id, calibration.release_id}
    for model in find_models(root):  # Triton starts with none of which a version is missing
        config = target.read_config(model)
        assert config is not None
        assert set(config.version_policy.specific.versions) <= set(target.versions(model))
    return served


def require_settled(root: Path) -> None:
    """Nothing is left of a killed command, and what Triton reads is what the live records say."""
    with publishing_alone(root), changing(root) as changes:
        served = Served.now(Repository(root))
        assert not served.write(changes, served.step_configs())
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == [".releases"]


@pytest.fixture
def two(pill: Path, repository: Path, tmp_path: Path) -> Path:
    """Two releases of pill that share no weights' file; the first is live."""
    publish(pill, repository)
    publish_aside(with_another_teacher(pill, tmp_path / "newer" / CATEGORY, "newer"), repository)
    return repository


@pytest.fixture
def work() -> Iterator[Path]:
    """A folder in memory where there is one: a killed process loses nothing that it wrote."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def walk(root: Path, work: Path, name: str, **arguments: Any) -> list[str]:
    """Kill a command at each step, and hold what is left to what a server and the next command need of it."""
    before = {record.release_id for record in Store(root).records(CATEGORY)}
    steps = killed(root, work, name, **arguments)
    for number, (step, copy) in enumerate(steps.items()):
        live = Store(copy).live(CATEGORY)
        entries = {entry["number"]: entry["release_id"] for entry in releases_of(copy, CATEGORY)}
        assert live is not None, step
        assert live.number in entries, step
        assert served_release(copy) <= before | set(entries.values()), step
        if number % 2:  # the next command: one that is not about it, or the start of a server
            promote(copy, CATEGORY, live.number)
        elif any(copy.glob(f"{STAGING}*")) or (copy / ".publisher").exists():
            assert "was killed" in " ".join(settle(copy)), step
        require_settled(copy)
        assert served_release(copy) == {entries[live.number]}, step
        if name != "retune" or live.number == 1:  # the new threshold is not live yet
            killing.command(name, copy, {key: str(value) for key, value in arguments.items()})
        require_settled(copy)
        faults = check(copy).faults
        if name == "retune":  # a threshold that was not set yet is set again, as another release
            faults = [fault for fault in faults if "3.json stands in no line of the audit log" not in fault]
        assert faults == [], step
    return list(steps)


def named(steps: list[str], *endings: str) -> bool:
    """Whether there is a step for each of these endings."""
    return all(any(step.endswith(ending) for step in steps) for ending in endings)


def test_publish(two: Path, pill: Path, work: Path, tmp_path: Path) -> None:
    build = with_another_teacher(pill, tmp_path / "newest" / CATEGORY, "newest")
    steps = walk(two, work, "publish", build=build)
    assert named(
        steps,
        f"rename /models/{TEACHER}/3",
        "rename /models/.releases/records/pill/3.json",
        f"rename /models/{TEACHER}/config.pbtxt",
        "rename /models/.releases/live/pill.json",
        "rename /models/pill/config.pbtxt",
        "rename /models/pill_encoded/config.pbtxt",
        "unlink /models/.publisher",
    )


def test_promote(two: Path, work: Path) -> None:
    steps = walk(two, work, "promote", category=CATEGORY, number=2)
    assert named(steps, "rename /models/.releases/live/pill.json", "rename /models/pill_encoded/config.pbtxt")


def test_retune(two: Path, work: Path) -> None:
    weights_id = Store(two).read(CATEGORY, 1).weights_id
    steps = walk(two, work, "retune", category=CATEGORY, threshold=7.5)
    assert named(steps, f"rename /models/.releases/calibrations/{weights_id}.json")


def test_import(two: Path, nut: Path, work: Path, tmp_path: Path) -> None:
    other = shutil.copytree(two, tmp_path / "other")
    publish(with_another_teacher(nut, tmp_path / "other nut" / "nut", "of nut"), other)
    bundle_release(other, "nut", 1, tmp_path / "nut.bundle")
    steps = walk(two, work, "import", file=tmp_path / "nut.bundle")
    assert named(
        steps,
        f"rename /models/{TEACHER}/3",
        "mkdir /models/nut_student",
        "rename /models/nut_student/1",
        "rename /models/.releases/records/nut/1.json",
    )


def test_prune(two: Path, pill: Path, work: Path, tmp_path: Path) -> None:
    publish(with_another_teacher(pill, tmp_path / "newest" / CATEGORY, "newest"), two)
    retune(two, CATEGORY, Retuning(threshold=7.5), url=None)
    publish(with_another_teacher(pill, tmp_path / "latest" / CATEGORY, "latest"), two)
    steps = walk(two, work, "prune", keep=1)
    # Release 1 with its student, teacher and calibration, release 2 with its teacher, and 3, whose files 4 needs.
    assert len([step for step in steps if "/removed-" in step and "rename" in step]) == 7


def test_bundle(two: Path, work: Path, tmp_path: Path) -> None:
    """The file is whole or not there; the repository is only read."""
    path = tmp_path / "pill.bundle"
    steps = walk(two, work, "bundle", category=CATEGORY, number=1, file=path)
    assert named(steps, f"replace {path}")
    with checked(path) as bundle:
        assert bundle.record.number == 1
