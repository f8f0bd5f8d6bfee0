from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from deploy.doctor.check import Verdict
from deploy.doctor.repository import check_clock, check_repository, duration
from tests.deploy.doctor.conftest import nobody, publish


def test_the_categories_are_named(published: Path) -> None:
    check = check_repository(published)
    assert (check.verdict, check.found) == (Verdict.OK, f"{published} publishes pill")


def test_a_repository_that_does_not_exist_is_missing(tmp_path: Path) -> None:
    check = check_repository(tmp_path / "none")
    assert check.verdict is Verdict.MISSING
    assert check.found == f"model repository {tmp_path / 'none'} does not exist"
    assert check.remedy == "Publish a category with `make export CATEGORY=<name>`."


def test_the_models_that_all_share_judge_nothing(tmp_path: Path) -> None:
    (tmp_path / "distance_fusion").mkdir()
    (tmp_path / "distance_fusion" / "config.pbtxt").touch()
    check = check_repository(tmp_path)
    assert check.verdict is Verdict.MISSING
    assert check.found.startswith(f"nothing is published in {tmp_path}")


def test_files_that_this_user_cannot_read_are_named(open_folder: Path) -> None:
    repository = publish(open_folder / "models")
    model = repository / "identity" / "1" / "model.py"
    model.chmod(0)
    with nobody():
        check = check_repository(repository)
    assert check.verdict is Verdict.MISSING
    assert check.found == f"{model} is not readable for this user"
    assert check.remedy.startswith(f"Run `chmod -R a+rX {repository}`")


def test_a_folder_that_this_user_cannot_enter_is_named(open_folder: Path) -> None:
    repository = publish(open_folder / "models")
    (repository / "pill").chmod(0o644)
    with nobody():
        check = check_repository(repository)
    assert check.verdict is Verdict.MISSING
    assert check.found == f"{repository / 'pill'} and 2 more are not readable for this user"


def test_a_repository_behind_a_locked_folder_is_missing(open_folder: Path) -> None:
    repository = publish(open_folder / "locked" / "models")
    repository.parent.chmod(0)
    with nobody():
        check = check_repository(repository)
    repository.parent.chmod(0o755)
    assert (check.verdict, check.found) == (Verdict.MISSING, f"{repository} cannot be reached by this user")


def test_a_publishers_own_files_are_not_asked_for(open_folder: Path) -> None:
    repository = publish(open_folder / "models")
    (repository / ".lock").touch(mode=0)
    with nobody():
        assert check_repository(repository).verdict is Verdict.OK


def test_a_clock_that_agrees_with_the_files(published: Path) -> None:
    check = check_clock(published)
    assert check.verdict is Verdict.OK
    assert check.found.endswith(f"and no file of {published} is newer")


def test_a_clock_that_was_set_back(published: Path) -> None:
    newest = published / "identity" / "1" / "model.py"
    ahead = time.time() + 3 * 86400
    os.utime(newest, (ahead, ahead))
    check = check_clock(published)
    assert check.verdict is Verdict.WARNING
    assert f"and {newest} is of " in check.found
    assert check.found.endswith(", 3 days later")
    assert "Set the clock" in check.remedy


def test_without_files_the_clock_is_compared_with_nothing(tmp_path: Path) -> None:
    assert "no file of" in check_clock(tmp_path / "none").found


@pytest.mark.parametrize(
    ("seconds", "words"), [(90, "2 minutes"), (3 * 3600, "3 hours"), (2 * 86400, "2 days")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
