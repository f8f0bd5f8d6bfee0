"""Ctrl-C: the answers on their way come first; a second one ends at once, and cancels nothing on the server."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.client.judging.scripted_server import Script, grey, scripted_server
from tests.deploy.conftest import comes_true
from tests.http2_wire import RST_STREAM, watched
from tests.products import ROOT

IN_FLIGHT = 4


@pytest.mark.parametrize(("presses", "delay_s"), [(1, 1.0), (2, 8.0)])
def test_ctrl_c_cancels_nothing(tmp_path: Path, presses: int, delay_s: float) -> None:
    for number in range(3 * IN_FLIGHT):
        grey(number).save(tmp_path / f"{number:02}.png")
    script = Script(delay_s=delay_s)
    command = [sys.executable, "-m", "client", "predict", str(tmp_path), "--category", "pill"]
    with scripted_server(script) as url, watched(url) as (proxy, wire):
        with subprocess.Popen(
            [*command, "--url", proxy, "--timeout-s", "20"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as client:
            try:
                assert comes_true(lambda: script.tries == IN_FLIGHT, within_s=30)
                pressed_s = time.monotonic()
                for _ in range(presses):
                    client.send_signal(signal.SIGINT)
                    time.sleep(0.3)
                told = client.communicate(timeout=30)[1]
            finally:
                client.kill()
        assert client.returncode == 2
        assert "Error: Interrupted." in told
        if presses == 2:
            assert time.monotonic() - pressed_s < delay_s
        else:
            # One more had been read already.
            assert IN_FLIGHT <= script.tries == len(script.asked) <= IN_FLIGHT + 1
    assert RST_STREAM not in wire.frames()
