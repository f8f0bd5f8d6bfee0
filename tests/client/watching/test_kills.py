"""Exactly once over kill -9 of either side, and a server that is away or published anew meanwhile."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from client.watching.journal import Journal
from client.watching.moving import Destinations
from tests.client.judging.scripted_server import SIZE, Script, scripted_server
from tests.client.watching.running import BAD, GOOD, WITHIN_S, judge_once, names, put, watching
from tests.deploy.conftest import comes_true
from tests.products import ROOT, unused_url

PICTURES, KILLS = 60, 3
SERVE = """
import sys, time
from tests.client.judging.scripted_server import Script, scripted_server
with scripted_server(Script(delay_s=0.02), port=int(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process of the project, killed at the end."""
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def count(journal: Path) -> int:
    try:
        with Journal(journal, read_only=True) as reader:
            return len(reader.judged_since(0))
    except Exception:
        return 0


def test_kills_of_either_side_lose_nothing_and_judge_nothing_twice(tmp_path: Path) -> None:
    drop, journal, jsonl = tmp_path / "drop", tmp_path / "j", tmp_path / "verdicts.jsonl"
    url = unused_url()
    command = [
        "-m",
        "client",
        "watch",
        str(drop),
        "--category",
        "pill",
        "--url",
        url,
        "--journal",
        str(journal),
    ]
    moves = [
        "--move-good",
        str(tmp_path / "good"),
        "--move-bad",
        str(tmp_path / "bad"),
        "--jsonl",
        str(jsonl),
    ]
    for number in range(PICTURES):
        put(drop / f"{number:03}.png", BAD if number % 3 == 0 else GOOD)
    for kill in range(KILLS):
        with process("-c", SERVE, url.partition(":")[2]) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            with process(*command, *moves):
                so_far = (kill + 1) * PICTURES // (KILLS + 2)
                assert comes_true(lambda wanted=so_far: count(journal) >= wanted, within_s=WITHIN_S)
                time.sleep(random.uniform(0, 0.05))
                if kill == 1:  # the server goes first, and the watch sees it
                    server.kill()
                    time.sleep(0.2)
    with scripted_server(Script()) as again:
        command[command.index(url)] = again
        done = subprocess.run(
            [sys.executable, *command, *moves, "--once"],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    with Journal(journal, read_only=True) as reader:
        judged = reader.judged_since(0)
    assert sorted(names(judged)) == [f"{number:03}.png" for number in range(PICTURES)]
    assert [each.number for each in judged] == list(range(1, PICTURES + 1))
    assert all(each.path.exists() for each in judged)
    assert len(list((tmp_path / "bad").iterdir())) == PICTURES / 3
    assert [path.name for path in drop.iterdir()] == [".astmfr-watch"]
    lines = jsonl.read_text().splitlines()
    assert len(lines) == len(set(lines)) == PICTURES


def test_an_outage_of_the_server_is_told_once_and_loses_nothing(tmp_path: Path) -> None:
    url, script = unused_url(), Script()
    drop, port = tmp_path / "drop", int(url.partition(":")[2])
    drop.mkdir()
    with watching(drop, url, timeout_s=0.5) as running:  # nobody is there yet
        put(drop / "a.png")
        assert running.says("No Triton server answers")
        with scripted_server(script, port=port):
            assert running.judges(1)
        assert running.says("The server judges again")
        for number in range(8):
            put(drop / f"b{number}.png")
        time.sleep(1.5)
        with scripted_server(script, port=port):
            assert running.judges(9)
            assert comes_true(lambda: running.said.count("The server judges again") == 2, within_s=5)
    assert names(running.judged()) == ["a.png", *(f"b{number}.png" for number in range(8))]
    assert running.said.count("Pictures wait.") <= 4


def test_once_does_not_wait_for_ever(tmp_path: Path) -> None:
    put(tmp_path / "drop" / "a.png")
    running = judge_once(tmp_path / "drop", unused_url(), patience_s=0.5)
    assert (running.tally.judged, running.tally.exit_code) == (0, 2)
    assert "No Triton server answers" in str(running.tally.fault)


def test_a_new_release_of_another_size_is_followed(tmp_path: Path) -> None:
    script, drop = Script(), tmp_path / "drop"
    drop.mkdir()
    with scripted_server(script) as url, watching(drop, url) as running:
        put(drop / "a.png")
        assert running.judges(1)
        script.size, script.release_id = 2 * SIZE, 78
        put(drop / "b.png")
        assert running.judges(2)
        assert running.says("Release 78 judges now; before it was 77.")
    assert [each.prediction.release_id for each in running.judged()] == [77, 78]


def test_a_picture_that_makes_the_server_fail_is_left_aside_and_the_others_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.watching.pipeline.SUSPECT_RETRY_S", 0.1)

    def refuse_bad(outputs: dict[str, object]) -> None:
        if outputs["pred_score"][0, 0] == BAD:  # type: ignore[index]
            outputs["pred_score"][0, 0] = float("nan")  # type: ignore[index]

    script, drop = Script(change=refuse_bad), tmp_path / "drop"
    put(drop / "a.png", BAD)
    with (
        scripted_server(script) as url,
        watching(drop, url, destinations=Destinations(unjudged=tmp_path / "aside")) as running,
    ):
        for number in range(60):
            put(drop / f"b{number:02}.png")
            time.sleep(0.05)
            if (tmp_path / "aside" / "a.png").exists():
                break
        assert running.says("Not judged: ")
    assert running.tally.unjudged == 1
    assert "a.png" not in names(running.judged())
    assert Counter(names(running.judged())).most_common(1)[0][1] == 1


def test_what_the_server_refuses_is_not_asked_again(tmp_path: Path) -> None:
    refused = (grpc.StatusCode.INVALID_ARGUMENT, "no image as the category takes it")
    script, drop = Script(refuse=lambda number: refused), tmp_path / "drop"
    put(drop / "a.png")
    with scripted_server(script) as url:
        running = judge_once(drop, url)
        assert (running.tally.unjudged, running.tally.exit_code) == (1, 2)
        assert judge_once(drop, url).tally.exit_code == 2  # it still lies there
    assert script.tries == 1


def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from client.watching import journal as journal_module
    from client.watching.database import JournalError

    full = [True]
    record = journal_module._record

    def record_unless_full(*arguments: object) -> int | None:
        if full:
            raise JournalError("The journal cannot be used (database or disk is full).", may_pass=True)
        return record(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(journal_module, "_record", record_unless_full)
    monkeypatch.setattr("client.watching.pipeline.JOURNAL_WAIT_S", 0.05)
    script, drop = Script(), tmp_path / "drop"
    put(drop / "a.png")
    with scripted_server(script) as url, watching(drop, url) as running:
        assert running.says("disk is full). Nothing is judged until then.")
        time.sleep(0.3)
        assert running.said.count("disk is full") == 1
        full.clear()
        assert running.judges(1)
        assert running.says("The journal can be used again.")
    assert script.tries == 1
