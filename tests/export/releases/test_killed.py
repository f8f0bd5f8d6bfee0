"""Kill -9 at every step of a command: the old or the new release is live, never neither; the next command repairs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.repository import find_models
from export.releases.changes import STAGING, changing
from export.releases.lock import publishing_alone
from export.releases.repository import Repository, parameters_of
from export.releases.store import Store
from export.releases.switch import Served, require_whole
from export.releases.verbs.promote import promote
from export.releases.verbs.repair import repair
from export.releases.verbs.table import releases_of
from model_repository.distance_fusion.map_fusion import Calibration
from tests.conftest import CATEGORY
from tests.export.releases import killing
from tests.export.releases.conftest import publish, with_another_teacher
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


def served_release(root: Path) -> set[int]:
    """The release ids with which a server that starts now would answer; it finds all that it needs."""
    target, served = Repository(root), set()
    for name in (CATEGORY, f"{CATEGORY}_encoded"):
        ensemble = target.read_config(name)
        assert ensemble is not None
        for step in ensemble.ensemble_scheduling.step:
            config = target.read_config(step.model_name)
            assert config is not None
            assert step.model_version in config.version_policy.specific.versions
            assert target.has_file(step.model_name, step.model_version, "model.py")
        served.add(int(parameters_of(ensemble)["release_id"]))
    for model in find_models(root):  # Triton starts with none of which a version is missing
        config = target.read_config(model)
        assert config is not None
        assert set(config.version_policy.specific.versions) <= set(target.versions(model))
    for record in Store(root).records(CATEGORY):
        if record.release_id in served:
            require_whole(target, record)
            path = Store(root).calibration_path(record.weights_id)
            served.add(Calibration.load(path).release_id)
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


def walk(root: Path, work: Path, name: str, **arguments: Any) -> list[str]:
    """Kill a command at each step, and hold what is left to what a server and the next command need of it."""
    ids = {record.release_id for record in Store(root).records(CATEGORY)}
    steps = killed(root, work, name, **arguments)
    assert steps
    for step, copy in steps.items():
        live = Store(copy).live(CATEGORY)
        assert live is not None, step
        numbers = {entry["number"] for entry in releases_of(copy, CATEGORY)}
        assert live.number in numbers, step
        known = ids | {entry["release_id"] for entry in releases_of(copy, CATEGORY)}
        assert served_release(copy) <= known, step
        again = shutil.copytree(copy, copy.parent / "again")
        repair(again)
        if not any(copy.glob(f"{STAGING}*")):
            (again / ".publisher").unlink(missing_ok=True)
        require_settled(again)
        live_id = Store(again).read(CATEGORY, live.number).release_id
        assert served_release(again) == {live_id}, step
        promote(copy, CATEGORY, live.number)  # the next command
        require_settled(copy)
        killing.command(
            name, copy, {key: str(value) for key, value in arguments.items()}
        )  # and the killed one again
        require_settled(copy)
    print("\n".join(steps))
    return list(steps)


def named(steps: list[str], *parts: str) -> bool:
    """Whether one of the steps is named so."""
    return any(all(part in step for part in parts) for step in steps)


def test_publish(two: Path, nut: Path, pill: Path, tmp_path: Path) -> None:
    build = with_another_teacher(pill, tmp_path / "newest" / CATEGORY, "newest")
    steps = walk(two, tmp_path / "killed", "publish", build=build)
    assert named(steps, "rename", "/models/teacher_test_resnet_64/3")
    assert named(steps, "rename", "/.releases/records/pill/3.json")
    assert named(steps, "rename", "/.releases/live/pill.json")
    assert named(steps, "rename", "/models/pill/config.pbtxt")
    assert named(steps, "fsync", "/models")
