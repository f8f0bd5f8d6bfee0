"""Asks a worker, starts another one when it dies or hangs, and says what must hold of an answer."""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.fuzzing.inputs import FusionRequest, is_clean
from tests.fuzzing.worker import SIZE
from tests.model_repository.server_stub import TritonError
from tests.products import ROOT

MOST_CPU_S = 2.0
MOST_WAIT_S = 30.0  # for a machine that has other things to do
MAX_MEGAPIXELS = 8
MOST_MB = 350  # a worker has 100, and a picture of 8 megapixels takes at most 29 bytes a pixel


class FindingError(AssertionError):
    """An input that was neither judged nor refused cleanly."""


class Steps:
    """Decoder and fusion in a process of their own."""

    def __init__(self) -> None:
        self.worker = self._start()
        self.asked = self.judged = 0

    def decode(self, picture: bytes) -> None:
        """Decode a picture.

        Raises:
            FindingError: it came to something else than pixels or a refusal.
        """
        said = self._ask(b"P", picture)
        if "error" in said:
            beginning = "image 1 of 1: encoded_image "
            if not said["error"].startswith(beginning) or said["code"] != TritonError.INVALID_ARG:
                raise FindingError(f"it is the server's fault: {said['error']}")
        elif said["tensors"]["image"][:2] != ["uint8", [1, SIZE, SIZE, 3]]:
            raise FindingError(f"it gives {said['tensors']}")

    def fuse(self, request: FusionRequest) -> None:
        """Fuse distance maps.

        Raises:
            FindingError: it came to something else than a finite verdict or a refusal.
        """
        said = self._ask(b"F", request.to_json())
        if not all(finite for _, _, finite in said.get("tensors", {}).values()):
            raise FindingError(f"a verdict is not finite: {said['tensors']}")

    def stop(self) -> None:
        """End the process."""
        self.worker.kill()
        self.worker.wait()
        for pipe in (self.worker.stdin, self.worker.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # of what was not sent yet
                pipe.close()

    def _ask(self, kind: bytes, content: bytes) -> dict[str, Any]:
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        self.asked += 1
        try:
            self.worker.stdin.write(kind + struct.pack(">I", len(content)) + content)
            self.worker.stdin.flush()
            ready, _, _ = select.select([self.worker.stdout], [], [], MOST_WAIT_S)
            line = self.worker.stdout.readline() if ready else b""
        except BrokenPipeError:
            line = b""
        if not line:
            died = self.worker.poll()
            self.stop()
            self.worker = self._start()
            raise FindingError("it hangs" if died is None else f"the process died ({died})")
        said: dict[str, Any] = json.loads(line)
        if "raised" in said:
            raise FindingError(f"it raises {said['raised']}")
        if said["seconds"] > MOST_CPU_S:
            raise FindingError(f"it takes {said['seconds']:.1f} s")
        if said["mb"] > MOST_MB:
            raise FindingError(f"it takes {said['mb']} MB")
        if "error" in said and not is_clean(said["error"]):
            raise FindingError(f"the error is no sentence: {said['error']!r}")
        self.judged += "tensors" in said
        return said

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.fuzzing.worker"],
            cwd=ROOT,
            env=os.environ | {"ASTMFR_MAX_MEGAPIXELS": str(MAX_MEGAPIXELS), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )


@contextlib.contextmanager
def running_steps() -> Iterator[Steps]:
    """Both steps in a process, which is ended."""
    steps = Steps()
    try:
        yield steps
    finally:
        steps.stop()
