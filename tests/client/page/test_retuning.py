"""A threshold is applied by `deploy retune` in a process of its own, and what that says is passed on."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from client import ClientError, RequestError
from client.page import deploy_commands, retuning
from client.page.deploy_commands import failure_of
from client.page.retuning import retune
from export.releases.audit.log import AuditLog
from export.releases.store import Store
from model_repository.running_servers import announced
from tests.conftest import CATEGORY
from tests.export.releases.conftest import publish
from tests.products import copy_backends, unused_url


@pytest.fixture
def repository(tiny_build: Path, tmp_path: Path) -> Path:
    """Release 1 of pill is live."""
    target = copy_backends(tmp_path / "models")
    publish(tiny_build / CATEGORY, target)
    return target


def test_the_threshold_is_live_and_its_reason_and_person_are_kept(repository: Path) -> None:
    before = Store(repository).read(CATEGORY, 1)
    reason, of_release = "--too many\nrejects \u20ac", before.release_id
    done = retune(
        CATEGORY, 2.4, of_release=of_release, reason=reason, who="Ada", repository=repository, url=None
    )
    live = Store(repository).live(CATEGORY)
    record = Store(repository).read(CATEGORY, 2)
    assert live is not None
    assert (live.number, record.calibration.image_threshold) == (2, 2.4)
    assert (done.release, done.release_id, done.threshold) == (2, record.release_id, 2.4)
    assert (done.release_before, done.release_id_before) == (1, before.release_id)
    assert done.threshold_before == before.calibration.image_threshold
    assert "threshold 2.4 (was " in done.said[0]
    (*_, line) = AuditLog.read(repository).lines()
    assert line is not None
    assert (line.what, line.reason) == ("retune", "--too many rejects € (Ada, on the page)")
    # The same threshold again is refused in the words of the command.
    ask = partial(retune, CATEGORY, 2.4, reason="again", who="", repository=repository, url=None)
    with pytest.raises(ClientError) as raised:
        ask(of_release=done.release_id)
    assert raised.value.message == "The threshold of pill is 2.4 already; nothing was changed."
    # Nor is one that was chosen for the scores of a release that is not live any more.
    with pytest.raises(ClientError) as raised:
        ask(of_release=of_release)
    assert raised.value.message == (
        f"Release id {done.release_id} of 'pill' is live, and the threshold was chosen for {of_release}; nothing was "
        "changed. Look at the scores of the live one first."
    )
    assert Store(repository).numbers(CATEGORY) == [1, 2]


def test_a_server_that_is_not_there_changes_nothing(repository: Path) -> None:
    live = Store(repository).read(CATEGORY, 1).release_id
    ask = partial(retune, CATEGORY, 2.4, of_release=live, reason="why", who="Ada", repository=repository)
    with pytest.raises(ClientError, match="Connection refused"):
        ask(url=unused_url())
    with announced(repository, unused_url()), pytest.raises(ClientError, match="Connection refused"):
        ask(url=None)
    assert Store(repository).numbers(CATEGORY) == [1]


@pytest.mark.parametrize(
    ("threshold", "reason", "sentence"),
    [
        (float("nan"), "why", "expected a finite number of at least 0"),
        (-1.0, "why", "expected a finite number of at least 0"),
        (1.0, " \n\0", "asks for a reason"),
        (1.0, "x" * 1001, "has 1001 characters; expected 1000 at most"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float, reason: str, sentence: str
) -> None:
    monkeypatch.setattr(retuning, "ask_deploy", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(RequestError, match=sentence):
        retune(CATEGORY, threshold, of_release=1, reason=reason, who="Ada", repository=tmp_path, url=None)


def test_no_answer_in_time_says_what_is_live(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command hangs, as on a server that does; it is stopped, and the repository says what came of it."""
    start = deploy_commands.start_python

    def hang(arguments: list[str], *, stdin: int) -> subprocess.Popen[str]:
        return start(
            ["-c", "import time; time.sleep(60)"] if "retune" in arguments else arguments, stdin=stdin
        )

    monkeypatch.setattr(deploy_commands, "start_python", hang)
    live = Store(repository).read(CATEGORY, 1)
    threshold, of_release = live.calibration.image_threshold, live.release_id
    ask = partial(retune, CATEGORY, 2.4, of_release=of_release, reason="why", who="Ada", timeout_s=0.5)
    with pytest.raises(ClientError) as raised:
        ask(repository=repository, url=None)
    assert raised.value.message == (
        "`python -m deploy retune` gave no answer within 0.5 seconds and was stopped; live is release 1 of pill, "
        f"threshold {threshold:.6g}."
    )


def test_where_deploy_is_not_installed_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that has `[client]` alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    ask = partial(retune, CATEGORY, 2.4, of_release=1, reason="why", who="Ada", repository=tmp_path, url=None)
    with pytest.raises(ClientError) as raised:
        ask()
    assert raised.value.message == (
        "`python -m deploy retune` cannot run here, since deploy is not installed; install it with `pip install "
        "'astmfr[deploy]'`, or do it where the server runs."
    )
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(ClientError, match="`python -m deploy retune` cannot be started"):
        ask()


def test_a_failure_is_told_in_the_words_of_the_command() -> None:
    usage = "Usage: python -m deploy retune [OPTIONS]\nTry '-h'.\n\nError: give\n  it.\n"
    assert failure_of(usage, "deploy retune", 2) == "give it."
    traceback = (
        "Traceback (most recent call last):\n  Error: x\nModuleNotFoundError: No module named 'pydantic'\n"
    )
    assert "since pydantic is not installed; install it with" in failure_of(traceback, "deploy retune", 1)
    other = "Traceback (most recent call last):\n  File x\nZeroDivisionError: division by zero\n"
    assert failure_of(other, "deploy retune", 1) == (
        "`python -m deploy retune` failed (exit code 1: ZeroDivisionError: division by zero)."
    )
    assert failure_of("", "deploy retune", -9) == "`python -m deploy retune` failed (signal 9)."
