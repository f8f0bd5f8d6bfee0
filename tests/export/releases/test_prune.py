"""Old releases go with what only they need; what is live, was before, is kept, loaded or unknown stays."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format

from export.errors import PublishError
from export.releases.audit import append
from export.releases.repository import Repository
from export.releases.store import Store
from export.releases.switch import require_whole
from export.releases.verbs.audit import lines_of
from export.releases.verbs.check import check
from export.releases.verbs.promote import promote, rollback
from export.releases.verbs.prune import prune
from export.releases.verbs.retune import Retuning, retune
from tests.conftest import CATEGORY
from tests.export.releases.conftest import TEACHER, contents, loaded, publish, with_another_teacher
from tests.export.releases.test_verbs import deploy, publish_aside
from tests.no_torch import run_without_torch
from tests.products import calibration_file


@pytest.fixture
def four(pill: Path, repository: Path, tmp_path: Path) -> Path:
    """Four releases of pill with four teachers and one student; the first is live."""
    publish(pill, repository)
    for name in ("second", "third", "fourth"):
        publish_aside(with_another_teacher(pill, tmp_path / name / CATEGORY, name), repository)
    return repository


def numbers(root: Path) -> list[int]:
    return Store(root).numbers(CATEGORY)


def teachers(root: Path) -> list[int]:
    return Repository(root).versions(TEACHER)


def test_a_dry_run_says_what_would_go_and_changes_nothing(four: Path) -> None:
    before = contents(four)
    for options in ((), ("--dry-run",)):
        code, said = deploy("prune", "--keep", 1, "--repository", four, *options)
        assert code == 0
        assert "Would remove release 2 of pill (release id " in said
        assert f"Would remove {TEACHER}/2: " in said
        assert "KiB" in said or "MiB" in said
        assert "2 releases, 2 versions of models" in said
        assert "nothing was removed: --yes does it" in said
    assert contents(four) == before
    assert deploy("prune", "--keep", 1, "--repository", four, "--yes", "--dry-run")[0] == 2
    assert deploy("prune", "--keep", 0, "--repository", four)[0] == 2
    assert deploy("prune", "--repository", four)[0] == 2


def test_what_is_live_was_before_or_is_kept_stays(four: Path, tmp_path: Path) -> None:
    said = run_without_torch("deploy", "prune", "--keep", 1, "--repository", four, "--yes")
    assert f"Removed {TEACHER}/3" in said
    assert check(four).faults == []
    assert (numbers(four), teachers(four)) == ([1, 4], [1, 4])
    for number in (1, 4):
        require_whole(Repository(four), Store(four).read(CATEGORY, number))
    promote(four, CATEGORY, 4)
    rollback(four, CATEGORY)
    retune(four, CATEGORY, Retuning(threshold=3), url=None)
    retune(four, CATEGORY, Retuning(threshold=4), url=None)
    assert prune(four, 1, apply=True)[0].startswith("Removed release 1 of pill")
    assert numbers(four) == [4, 5, 6]  # 5 and 6 have the files of the first one, and 4 is loaded still
    assert teachers(four) == [1, 4] == loaded(four, TEACHER)
    assert prune(four, 1, apply=True) == ["0 releases, 0 versions of models, 0.0 KiB: removed."]
    assert prune(four, 1) == [f"Nothing to remove from {four}."]
    assert check(four).faults == []
    assert [line["what"] for line in lines_of(four)][-1] == "prune"
    assert [path.name for path in four.iterdir() if path.name.startswith(".")] == [".releases"]


def test_what_triton_reads_names_no_version_that_is_gone(four: Path) -> None:
    """A server would fail at its next start."""
    for number in (2, 3, 4):
        promote(four, CATEGORY, number)
    path = four / TEACHER / "config.pbtxt"
    assert loaded(four, TEACHER) == [3, 4]
    config = Repository(four).read_config(TEACHER)
    assert config is not None
    config.version_policy.specific.versions.insert(0, 2)  # as of a configuration that is no longer rendered
    path.write_text(text_format.MessageToString(config))
    prune(four, 1, apply=True)
    assert (teachers(four), loaded(four, TEACHER)) == ([3, 4], [3, 4])


def test_a_model_that_none_needs_goes_whole(pill: Path, nut: Path, repository: Path) -> None:
    publish(nut, repository)
    publish(pill, repository)
    student, weights = repository / "nut_student", Store(repository).read("nut", 1).weights_id
    # As if its second release, which is live, were of another precision.
    record = Store(repository).read("nut", 1)
    second = Store(repository).record_path("nut", 2)
    pills = Store(repository).read(CATEGORY, 1)
    steps = {**record.steps, "student": pills.steps["student"]}
    calibration = replace(pills.calibration, weights_id=7)
    second.write_text(
        record.model_copy(update={"number": 2, "steps": steps, "calibration": calibration}).to_json()
    )
    append(repository, "publish", "nut", 2)
    promote(repository, "nut", 2)
    Store(repository).live_path("nut").write_text('{"number": 2, "before": null}')
    assert calibration_file(repository, weights).is_file()
    said = prune(repository, 1, apply=True)
    assert said[0].startswith("Removed release 1 of nut")
    assert not student.exists()
    assert not calibration_file(repository, weights).exists()
    require_whole(Repository(repository), Store(repository).read(CATEGORY, 1))


def test_what_a_server_has_loaded_stays(four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Server:
        def __init__(self, url: str) -> None:
            self.url = url

        def close(self) -> None: ...

        def require_repository(self, *_: object) -> None: ...

        def loaded_versions(self) -> set[tuple[str, int]]:
            return {(TEACHER, 3), ("image_decoder_64", 2)}

    monkeypatch.setattr("export.releases.verbs.server.RunningServer", Server)
    said = prune(four, 1, url="line-3:8001", apply=True)
    assert f"Release 3 of pill stays: its {TEACHER} 3 is loaded at line-3:8001." in said
    assert (numbers(four), teachers(four)) == ([1, 3, 4], [1, 3, 4])


def test_a_server_that_does_not_answer_is_told(four: Path) -> None:
    before = contents(four)
    code, said = deploy("prune", "--keep", 1, "--repository", four, "--url", "127.0.0.1:1", "--yes")
    assert code == 1
    assert said.startswith("Error: The server at 127.0.0.1:1 does not answer")
    assert contents(four) == before


def test_what_nobody_knows_stays_and_is_told(four: Path) -> None:
    (four / TEACHER / "9").mkdir()
    (four / TEACHER / "9" / "model.onnx").write_bytes(b"mine")
    (four / "camera").mkdir()
    (four / "camera" / "notes.txt").write_text("mine")
    said = prune(four, 1, apply=True)
    assert f"{TEACHER}/9 stays (0.0 KiB): no record names it." in said
    assert (four / TEACHER / "9" / "model.onnx").is_file()
    assert (four / "camera" / "notes.txt").is_file()
    assert not [line for line in said if "image_decoder" in line or "distance_fusion" in line]


def test_nothing_goes_while_a_record_cannot_be_read(four: Path) -> None:
    Store(four).record_path(CATEGORY, 2).write_text("{")
    before = contents(four)
    for apply in (False, True):
        with pytest.raises(PublishError, match=r"2\.json is no whole record"):
            prune(four, 1, apply=apply)
    assert contents(four) == before


def test_a_signature_goes_with_its_record(four: Path) -> None:
    for number in (1, 2):
        Store(four).record_path(CATEGORY, number).with_name(f"{number}.json.sig").write_bytes(b"signed")
    prune(four, 1, apply=True)
    folder = Store(four).record_path(CATEGORY, 1).parent
    assert sorted(path.name for path in folder.iterdir()) == ["1.json", "1.json.sig", "4.json"]


def test_an_ensemble_without_a_record_keeps_its_versions(four: Path) -> None:
    """Another category of before is served over a teacher that only an old release knows."""
    for name in ("old", "old_encoded"):
        source = (four / CATEGORY / "config.pbtxt").read_text().replace('name: "pill"', f'name: "{name}"')
        pinned = f'model_name: "{TEACHER}"\n    model_version: '
        assert f"{pinned}1" in source
        shutil.copytree(four / CATEGORY, four / name)
        (four / name / "config.pbtxt").write_text(source.replace(f"{pinned}1", f"{pinned}2"))
    said = prune(four, 1, apply=True)
    assert f"Release 2 of pill stays: its {TEACHER} 2 is a step of old_encoded." in said
    assert teachers(four) == [1, 2, 4]


def test_a_record_that_somebody_removed_is_told_and_noted(four: Path) -> None:
    Store(four).record_path(CATEGORY, 3).unlink()
    assert any(
        "3.json, which line 3 of the audit log names, is gone" in fault for fault in check(four).faults
    )
    said = prune(four, 3, apply=True)
    assert said[0] == "Removed release 3 of pill from the audit log's: its record is gone"
    assert check(four).faults == []
    Store(four).record_path(CATEGORY, 1).unlink()
    before = contents(four)
    with pytest.raises(PublishError, match=r"1\.json does not exist"):  # the live one
        prune(four, 1, apply=True)
    assert contents(four) == before


def test_where_no_release_is_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"holds no release; there is nothing to remove\.$"):
        prune(tmp_path / "none", 1, apply=True)
    assert not (tmp_path / "none").exists()
