"""What is damaged, lost or left behind of one category is named, and is in no other category's way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.repository import served_models, settle
from export.errors import PublishError
from export.releases.repository import Repository
from export.releases.store import PROBE_WEIGHTS_ID, Live, Store
from export.releases.verbs.check import check
from export.releases.verbs.promote import promote, rollback
from export.releases.verbs.retune import Retuning, retune
from export.releases.verbs.table import faults_of, releases_of
from tests.conftest import CATEGORY
from tests.export.releases.conftest import TEACHER, contents, loaded, publish, with_another_teacher
from tests.export.releases.test_verbs import deploy, publish_aside


@pytest.fixture
def both(pill: Path, nut: Path, repository: Path, tmp_path: Path) -> Path:
    """Two releases of pill, the first of them live, and one of nut over a teacher of its own."""
    publish(pill, repository)
    publish_aside(with_another_teacher(pill, tmp_path / "newer" / CATEGORY, "newer"), repository)
    publish(with_another_teacher(nut, tmp_path / "of nut" / "nut", "of nut"), repository)
    return repository


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


DAMAGE: dict[str, tuple[Callable[[Store], None], str]] = {
    "record cut short": (
        lambda store: cut(store.record_path("nut", 1)),
        "nut/1.json is no whole record",
    ),
    "record lost": (
        lambda store: store.record_path("nut", 1).unlink(),
        "nut/1.json does not exist",
    ),
    "pointer lost": (
        lambda store: store.live_path("nut").unlink(),
        "nut.json, which says which release of 'nut' is live, is gone; promote one",
    ),
    "pointer of nothing": (
        lambda store: store.live_path("nut").write_bytes(b'{"number": null}') and None,
        "it holds null, expected the number of a release",
    ),
    "pointer of true": (
        lambda store: store.live_path("nut").write_bytes(b'{"number": true}') and None,
        "it holds true, expected the number of a release",
    ),
}


@pytest.mark.parametrize(("damage", "sentence"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_category_is_named_and_the_others_are_switched(
    both: Path,
    pill: Path,
    nut: Path,
    tmp_path: Path,
    damage: Callable[[Store], None],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(Store(both))
    kept = {name: content for name, content in contents(both).items() if "nut" in name}
    commands: list[Callable[[], object]] = [
        lambda: promote(both, CATEGORY, 2),
        lambda: rollback(both, CATEGORY),
        lambda: retune(both, CATEGORY, Retuning(threshold=12.5), url=None),
        lambda: publish(with_another_teacher(pill, tmp_path / "third" / CATEGORY, "third"), both),
    ]
    for command in commands:
        command()
        assert sentence in capsys.readouterr().err
        assert {name: content for name, content in contents(both).items() if "nut" in name} == kept
        config = Repository(both).read_config("nut")
        assert config is not None
        for step in config.ensemble_scheduling.step:
            assert step.model_version in loaded(both, step.model_name)
    assert Store(both).live(CATEGORY) == Live(4, 3, 3)
    with pytest.raises(PublishError, match=re.escape(sentence)):
        retune(both, "nut", Retuning(threshold=1), url=None)
    if sentence.endswith("does not exist"):
        assert publish(nut, both).startswith("Published")
    else:
        with pytest.raises(PublishError, match=re.escape(sentence)):
            publish(nut, both)


def test_damaged_records_stand_in_the_table(both: Path) -> None:
    cut(Store(both).record_path("nut", 1))
    code, output = deploy("releases", "--repository", both)
    assert code == 1
    assert "damaged" in output
    assert "nut/1.json is no whole record" in output
    assert all(f"{entry['release_id']}" in output for entry in releases_of(both, CATEGORY))
    Store(both).live_path(CATEGORY).write_text("{}")
    entries = releases_of(both)
    marks = [(entry["category"], entry["number"], entry["live"]) for entry in entries]
    assert marks == [("nut", 1, "live"), (CATEGORY, 1, "?"), (CATEGORY, 2, "?")]
    assert len(faults_of(entries)) == 2


def test_a_damaged_pointer_is_mended_by_a_promotion(both: Path) -> None:
    for content in (b"", b'{"number": true}'):
        Store(both).live_path(CATEGORY).write_bytes(content)
        assert "Live: release 2 of pill" in promote(both, CATEGORY, 2)
        assert Store(both).live(CATEGORY) == Live(2)
        assert check(both).faults == []


def test_what_a_killed_command_left_is_in_nobodys_way(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probed = Store(both).calibration_path(PROBE_WEIGHTS_ID)
    left = [both / ".publish-x", both / ".publish-y", both / ".publish-z", probed]
    for path in (left[0], probed):
        path.write_bytes(b"")
    (left[1] / "folder").mkdir(parents=True)
    left[2].symlink_to(tmp_path)
    promote(both, CATEGORY, 2)
    assert not any(path.is_symlink() or path.exists() for path in left)
    assert tmp_path.is_dir()
    assert capsys.readouterr().err == ""
    left[0].write_bytes(b"")
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == ".publish-x":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    promote(both, CATEGORY, 1)
    assert ".publish-x was left by a command that was killed and cannot be" in capsys.readouterr().err


def test_a_server_starts_with_what_is_live_alone(both: Path) -> None:
    assert settle(both) == []
    promote(both, CATEGORY, 2)
    assert loaded(both, TEACHER) == [1, 2, 3]
    log = (both / ".releases" / "audit.jsonl").read_bytes()
    assert settle(both) == []
    assert loaded(both, TEACHER) == [2, 3]
    assert Store(both).live(CATEGORY) == Live(2, 1)
    assert (both / ".releases" / "audit.jsonl").read_bytes() == log
    assert check(both).faults == []
    before = contents(both)
    assert settle(both) == []
    assert contents(both) == before
    rollback(both, CATEGORY)
    assert loaded(both, TEACHER) == [1, 2, 3]
    assert check(both).faults == []


def test_a_server_that_has_to_load_the_release_before_is_told(
    both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(both, CATEGORY, 2)
    before = contents(both)

    def refuse(*_: object, **__: object) -> None:
        raise PublishError("models cannot be written (Read-only file system).")

    monkeypatch.setattr("export.releases.verbs.repair.publishing_alone", refuse)
    (said,) = settle(both)
    assert said == (
        "The server loads release 1 of pill beside what is live, which takes memory: models cannot be written "
        "(Read-only file system)."
    )
    assert contents(both) == before


def test_a_command_that_was_killed_between_two_changes_is_repaired_before_a_server_starts(both: Path) -> None:
    """Its lock file alone is left: the configurations name versions that it was about to load."""
    text = (both / TEACHER / "config.pbtxt").read_text()
    (both / TEACHER / "config.pbtxt").write_text(text.replace("versions: 3", "versions: 2\n    versions: 3"))
    (both / ".publisher").write_text(json.dumps({"pid": 1, "host": "line-7", "since": "2026"}))
    (said,) = settle(both)
    assert said.endswith("was killed: what Triton reads is again as the live releases say.")
    assert loaded(both, TEACHER) == [1, 3]


def test_steps_of_releases_that_are_not_live_are_not_loaded(both: Path) -> None:
    everything = set(served_models(both))
    assert {"nut", "nut_encoded", "nut_student", CATEGORY, TEACHER, "image_decoder_64"} <= everything
    spare = both / "nut_student_128" / "config.pbtxt"
    spare.parent.mkdir()
    text = (both / "nut_student" / "config.pbtxt").read_text()
    spare.write_text(text.replace("nut_student", "nut_student_128"))
    (both / "other" / "1").mkdir(parents=True)
    (both / "other" / "config.pbtxt").write_text('name: "other"\n')  # not ours: loaded as before
    assert set(served_models(both)) == everything | {"other"}
