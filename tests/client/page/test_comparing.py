"""A release that is not live judges marked pictures beside the one that serves, on the real server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from client import ClientError, JudgeClient, NotServed, RequestError, Score, Unreachable
from client.page import comparing
from client.page.comparing import Compared, candidates, compare, preview
from client.page.marks import MarkedPicture
from client.page.training_set.contents import is_held_out
from client.page.training_set.reading import digest_of
from deploy.server import TritonServer, running_server
from export.releases.publish import Circumstances, publish_category
from export.releases.store import Store
from export.releases.verbs.promote import promote
from export.releases.verbs.retune import Retuning, retune
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from tests.conftest import CATEGORY
from tests.export.releases.conftest import TEACHER, with_another_teacher
from tests.products import ROOT, TIMEOUT_S, copy_backends

CANDIDATE = 3


@dataclass
class Judge:
    """A client that says what it is told to say, by the pictures' names."""

    answers: dict[str, float | ClientError]
    threshold: float = 1.0
    category: str = CATEGORY
    asked: int = 0

    def score(self, path: Path) -> Score:
        self.asked += 1
        answer = self.answers[path.name]
        if isinstance(answer, ClientError):
            raise answer
        return Score(answer, self.threshold, answer > self.threshold, 1, 1.0)


def pictures(folder: Path, **wrong: Any) -> list[MarkedPicture]:
    marks = []
    for name, mark in wrong.items():
        (folder / name).write_bytes(name.encode())
        marks.append(MarkedPicture(folder / name, CATEGORY, mark, "", None, 0.0, 1.0, 1))
    return marks


def judged(marks: list[MarkedPicture], live: Judge, candidate: Judge) -> list[Compared]:
    return compare(marks, live, candidate)  # type: ignore[arg-type]


def test_it_is_told_what_is_put_right_and_what_is_made_wrong(tmp_path: Path) -> None:
    marks = pictures(tmp_path, a="escape", b="false reject", c="escape", d="false reject")
    live = Judge({"a": 0.5, "b": 1.5, "c": 1.5, "d": 0.5})
    candidate = Judge({"a": 3.0, "b": 1.5, "c": 1.5, "d": 2.5}, threshold=2.0)
    results = judged(marks, live, candidate)
    assert [result.put_right for result in results] == [True, True, False, False]
    assert [result.made_wrong for result in results] == [False, False, True, True]
    assert [result.live_right for result in results] == [False, False, True, True]
    assert [(result.live.threshold, result.candidate.threshold) for result in results] == [(1.0, 2.0)] * 4  # type: ignore[union-attr]
    trained = [mark.wrong == "false reject" and not is_held_out(digest_of(mark.path)) for mark in marks]
    assert [result.trained_on for result in results] == trained


def test_a_fault_in_one_picture_ends_that_one(tmp_path: Path) -> None:
    marks = pictures(tmp_path, a="escape", b="false reject", c="escape", d="escape")
    marks[1].path.unlink()
    marks[3] = replace(marks[3], category="mono")
    live = Judge({"a": 0.5, "c": ClientError("c is no image.")})
    results = judged(marks, live, Judge({"a": 1.5}))
    assert [result.fault is None for result in results] == [True, False, False, False]
    assert "b cannot be read (No such file or directory); it was not judged." in str(results[1].fault)
    assert results[2].fault == "c is no image."
    assert "is of 'mono', not of 'pill'" in str(results[3].fault)
    assert not any(result.put_right or result.made_wrong for result in results[1:])
    assert [result.candidate_right for result in results] == [True, None, None, None]


@pytest.mark.parametrize("fault", [Unreachable("It is gone."), NotServed("It is gone.")])
def test_a_server_that_is_gone_is_asked_no_more(tmp_path: Path, fault: ClientError) -> None:
    marks = pictures(tmp_path, a="escape", b="escape", c="escape")
    live = Judge({"a": 0.5, "b": 0.5, "c": 0.5})
    results = judged(marks, live, Judge({"a": 1.5, "b": fault}))
    assert [result.fault for result in results] == [None, "It is gone.", "It is gone."]
    assert results[0].put_right
    assert live.asked == 2


def test_two_products_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="expected one product"):
        judged([], Judge({}), Judge({}, category="mono"))


def test_a_preview_that_is_not_ready_in_time_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import sys, time; print('Starting ...', file=sys.stderr, flush=True); time.sleep(60)"
    start, started = comparing.start_python, list[subprocess.Popen[str]]()

    def slow(_: object, **options: int) -> subprocess.Popen[str]:
        started.append(start(["-c", script], **options))
        return started[0]

    monkeypatch.setattr(comparing, "start_python", slow)
    with (
        pytest.raises(ClientError, match=r"was not ready within 1 seconds(; it said: Starting)?\.$"),
        preview(CATEGORY, 1, tmp_path, timeout_s=1),
    ):
        pass
    assert started[0].returncode is not None


@pytest.fixture(scope="module")
def repository(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Release 1 is live; 2 and 3 have another teacher, and 3 a threshold that rejects everything."""
    work = tmp_path_factory.mktemp("previewed")
    target = copy_backends(work / "models")
    for build in (
        tiny_build / CATEGORY,
        with_another_teacher(tiny_build / CATEGORY, work / CATEGORY, "newer"),
    ):
        publish_category(
            build,
            repository=target,
            platform=Platform(max_batch_size=4),
            read_graph=read_onnx_file,
            circumstances=Circumstances(live=True),
        )
    retune(target, CATEGORY, Retuning(threshold=1e-6), url=None)
    promote(target, CATEGORY, 1)
    yield target
    shutil.rmtree(work)


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    log = repository.parent / "tritonserver.log"
    with running_server(repository=repository, log=log, triton_env=ROOT / ".triton") as running:
        yield running


def state_of(repository: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with when it was written, hidden ones too."""
    return {
        str(path.relative_to(repository)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in repository.rglob("*")
        if path.is_file()
    }


@pytest.mark.triton
def test_a_preview_leaves_the_server_and_its_repository_as_they_are(
    repository: Path, server: TritonServer, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [image.path for image in tiny_data.test[:6]]
    marks = [MarkedPicture(path, CATEGORY, "escape", "", None, 0.0, 1.0, 1) for path in paths[:3]]
    marks += [MarkedPicture(path, CATEGORY, "false reject", "", None, 0.0, 1.0, 1) for path in paths[3:]]
    before, beside = state_of(repository), set(repository.parent.iterdir())
    log = server.log_text().count("loading:")
    with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as live:
        release_id = live.score(paths[0]).release_id
        monkeypatch.setenv("ASTMFR_TLS_CA", str(ROOT / "README.md"))  # that of the server that serves, say
        with (
            preview(CATEGORY, CANDIDATE, repository) as endpoint,
            JudgeClient(endpoint, category=CATEGORY, timeout_s=TIMEOUT_S) as candidate,
        ):
            scratch = set(repository.parent.iterdir()) - beside
            results = compare(marks, live, candidate)
            root = next(iter(scratch)) / "model_repository"
            graphs = [path.relative_to(root) for path in root.rglob("model.onnx")]
            assert {str(graph) for graph in graphs} == {
                f"{TEACHER}/2/model.onnx",
                "pill_student/2/model.onnx",
            }
            assert all((root / graph).samefile(repository / graph) for graph in graphs)
        assert live.score(paths[0]).release_id == release_id
    assert [result.fault for result in results] == [None] * 6
    assert {result.live.release_id for result in results if result.live} == {release_id}
    (other,) = {result.candidate.release_id for result in results if result.candidate}
    assert other != release_id
    assert all(result.candidate and result.candidate.anomalous for result in results)
    assert [result.candidate_right for result in results] == [True] * 3 + [False] * 3
    assert state_of(repository) == before
    assert set(repository.parent.iterdir()) == beside
    assert server.log_text().count("loading:") == log
    assert has_ended(endpoint.url)


@pytest.mark.triton
def test_a_killed_preview_is_swept_and_one_ends_with_the_program_that_started_it(repository: Path) -> None:
    """The server of a command that was killed with -9 ends too; its folder stays until the next preview."""
    where = [f"--repository={repository}", "--while-stdin"]
    arguments = ["-m", "deploy", "preview", CATEGORY, str(CANDIDATE), *where]
    with comparing.start_python(arguments, stdin=subprocess.PIPE) as killed:
        left = wait_for(lambda: next(repository.parent.glob(".astmfr-preview-*"), None))
        wait_for(lambda: servers_of(left))
        killed.kill()
    wait_for(lambda: not servers_of(left))
    assert left.is_dir()
    with comparing.start_python(arguments, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        url = process.stdout.readline().strip()
        (new,) = repository.parent.glob(".astmfr-preview-*")
        assert new != left
        process.stdin.close()  # as when the program that started it is killed
        assert process.wait(60) == 0
    assert has_ended(url)
    assert not list(repository.parent.glob(".astmfr-preview-*"))


def servers_of(folder: Path) -> list[int]:
    """The processes that serve a repository in a folder."""
    processes = psutil.process_iter(["pid", "name", "cmdline"])
    return [
        process.info["pid"]
        for process in processes
        if process.info["name"] == "tritonserver" and str(folder) in " ".join(process.info["cmdline"] or [])
    ]


def wait_for(found: Callable[[], Any]) -> Any:
    """What a function finds, asked again and again until it finds something."""
    until = time.monotonic() + 60
    while not (result := found()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return result


def has_ended(url: str) -> bool:
    """Whether nothing listens at host:port any more."""
    host, _, port = url.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=1).close()
    return True


def test_the_releases_that_are_not_live_are_the_candidates(repository: Path) -> None:
    found = candidates(CATEGORY, repository)
    assert [candidate.number for candidate in found] == [3, 2]
    assert [candidate.was_live for candidate in found] == [True, False]
    assert found[0].threshold == 1e-6
    assert found[0].release_id == Store(repository).read(CATEGORY, 3).release_id
    with pytest.raises(ClientError, match="holds no release of 'cup'"):
        candidates("cup", repository)


def test_a_damaged_release_is_no_candidate_and_hides_no_other(repository: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "models"
    shutil.copytree(repository / ".releases", damaged / ".releases")
    Store(damaged).record_path(CATEGORY, 2).write_text("{", encoding="utf-8")
    assert [candidate.number for candidate in candidates(CATEGORY, damaged)] == [3]


def test_a_preview_that_fails_says_why_in_the_words_of_deploy(repository: Path) -> None:
    with pytest.raises(ClientError) as raised, preview(CATEGORY, 9, repository):
        pass
    assert raised.value.message == f"{repository} has no release 9 of 'pill'; it has 1, 2, 3."
