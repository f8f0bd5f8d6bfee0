"""`python -m client watch` as a process: its exit codes, its end by a signal, what it prints and where."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from client.__main__ import main
from client.predictions.prediction import Prediction
from client.watching.journal import journal_path
from deploy.server import TritonServer
from tests.client.judging.scripted_server import Script, scripted_server
from tests.client.watching.running import BAD, put
from tests.deploy.conftest import comes_true
from tests.products import ROOT, Product

pytest_plugins = ["tests.serving"]
SOON = ("--settle-s", "0.1", "--poll-s", "0.05")


@pytest.fixture
def url() -> Iterator[str]:
    with scripted_server(Script()) as served:
        yield served


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["watch", *map(str, arguments), *SOON])


def test_once_says_with_its_exit_code_what_there_was(tmp_path: Path, url: str) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    options = ("--category", "pill", "--url", url, "--once", "--jsonl", "-")
    assert run(drop, *options).exit_code == 0
    put(drop / "a.png")
    done = run(drop, *options)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["image"] == str(drop / "a.png")
    put(drop / "b.png", BAD)
    done = run(drop, *options, "--move-bad", tmp_path / "bad", "--remove-good")
    assert done.exit_code == 1
    assert (tmp_path / "bad" / "b.png").exists()
    assert [json.loads(line)["score"] for line in done.stdout.splitlines()] == [BAD]
    assert all("Z " in line for line in done.stderr.splitlines())
    (drop / "c.png").write_bytes(b"no picture")
    os.utime(drop / "c.png", (0, 0))
    assert run(drop, *options).exit_code == 2


def test_a_signal_ends_it_after_the_answers_on_their_way(tmp_path: Path) -> None:
    drop, script = tmp_path / "drop", Script(delay_s=0.5)
    for index in range(20):
        put(drop / f"{index:02}.png")
    with scripted_server(script) as url:
        command = [
            sys.executable,
            "-m",
            "client",
            "watch",
            str(drop),
            "--category",
            "pill",
            "--url",
            url,
            *SOON,
        ]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watch:
            try:
                assert comes_true(lambda: script.tries >= 4, within_s=30)
                watch.send_signal(signal.SIGTERM)
                printed, said = watch.communicate(timeout=30)
            finally:
                watch.kill()
    assert watch.returncode == 0
    assert printed == ""
    assert "Stopping after the answers on their way; once more stops at once." in said
    assert f"Ended; {len(script.asked)} judged" in said
    assert len(script.asked) < 20


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    script = Script(delay_s=8)
    with scripted_server(script) as url:
        command = [sys.executable, "-m", "client", "watch", str(tmp_path), "--category", "pill", "--url", url]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as watch:
            try:
                assert comes_true(lambda: script.tries == 1, within_s=30)
                for _ in range(2):
                    watch.send_signal(signal.SIGINT)
                    time.sleep(0.3)
                began_s = time.monotonic()
                said = watch.communicate(timeout=30)[1]
            finally:
                watch.kill()
        assert time.monotonic() - began_s < 3
    assert watch.returncode == 130
    assert "Traceback" not in said


def test_it_ends_in_peace_when_nobody_reads_its_lines(tmp_path: Path, url: str) -> None:
    put(tmp_path / "drop" / "a.png")
    command = [
        sys.executable,
        "-m",
        "client",
        "watch",
        str(tmp_path / "drop"),
        "--category",
        "pill",
        "--url",
        url,
    ]
    with subprocess.Popen(
        [*command, "--jsonl", "-", *SOON], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watch:
        try:
            assert watch.stdout is not None
            assert watch.stderr is not None
            assert json.loads(watch.stdout.readline())["score"] == 50
            watch.stdout.close()
            put(tmp_path / "drop" / "b.png")
            said = watch.stderr.read()
            assert watch.wait(timeout=30) == 0
        finally:
            watch.kill()
    assert "Traceback" not in said
    assert "Exception" not in said


@pytest.mark.triton
def test_a_real_server_judges_as_pytorch_does(tmp_path: Path, server: TritonServer, edge: Product) -> None:
    drop = shutil.copytree(edge.data.root / "test", tmp_path / "drop")
    done = run(
        drop, "--category", edge.name, "--url", server.grpc_url, "--timeout-s", "60", "--once", "--jsonl", "-"
    )
    expected = {
        str(drop / image.defect / image.path.name): float(score)
        for image, score in zip(edge.data.test, edge.expected.pred_score[:, 0], strict=True)
    }
    found = [Prediction.from_json(line) for line in done.stdout.splitlines()]
    assert {each.image: each.score for each in found} == pytest.approx(expected, abs=1e-3)
    assert done.exit_code == int(any(each.anomalous for each in found)), done.stderr
    assert {each.original_size for each in found} == {(160, 160)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--move-good", "good", "--remove-good"), "cannot be both moved and removed"),
        (("--fps", "2"), "choose frames of a --source"),
        (("--source", "clip.avi"), "expected video:FILE"),
        (("--webhook", "host"), "The webhook's address is 'host'"),
        (("--mqtt", "host"), "The broker's address is 'host'"),
        (("--opcua", "host"), "The OPC UA server's address is 'host'"),
        (("--secrets", "nowhere"), "nowhere cannot be read"),
        (("--jsonl", "."), "is a folder"),
        (("--in-flight", "0"), "--in-flight"),
        (("--status-s", "nan"), "no finite number"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_judges_nothing(
    tmp_path: Path, url: str, options: tuple[str, ...], words: str
) -> None:
    put(tmp_path / "a.png")
    done = run(tmp_path, "--category", "pill", "--url", url, "--once", *options)
    assert done.exit_code in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.output
    assert (tmp_path / "a.png").exists()


def test_secrets_that_all_may_read_are_refused_and_never_printed(tmp_path: Path, url: str) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text("webhook=whsec_short\n")
    secrets.chmod(0o644)
    drop = tmp_path / "drop"
    drop.mkdir()
    options = (
        drop,
        "--category",
        "pill",
        "--url",
        url,
        "--once",
        "--webhook",
        "http://host/",
        "--secrets",
        secrets,
    )
    assert "is open to everybody on this machine" in run(*options).stderr
    secrets.chmod(0o600)
    done = run(*options)
    assert "The webhook's secret has another form" in done.stderr
    assert "short" not in done.stderr


def test_without_the_extra_it_watches_and_prints_lines(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("httpx", "paho", "asyncua", "cv2"):
        monkeypatch.setitem(sys.modules, library, None)
    put(tmp_path / "a.png")
    done = run(tmp_path, "--category", "pill", "--url", url, "--once", "--jsonl", "-")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["defects"] == []


@pytest.mark.parametrize(
    ("option", "library"),
    [
        (("--webhook", "http://host/"), "httpx"),
        (("--mqtt", "mqtt://host"), "paho"),
        (("--opcua", "opc.tcp://host"), "asyncua"),
        (("--source", "usb:0"), "cv2"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    tmp_path: Path, url: str, option: tuple[str, str], library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("webhook", "mqtt", "opcua"):
        monkeypatch.delitem(sys.modules, f"client.watching.sinks.{name}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    done = run(tmp_path, "--category", "pill", "--url", url, "--once", *option)
    assert done.exit_code == 2
    assert "which is not installed; install it with `pip install 'astmfr[watch]'`." in done.stderr
    assert not journal_path(tmp_path).with_name("journal.sqlite-wal").exists()
