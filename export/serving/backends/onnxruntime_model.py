"""Triton Python backend: runs the `model.onnx` beside it with ONNX Runtime.

Published with a teacher, student or SAM where the server has no ONNX Runtime backend of its own. Requests
that wait together run as one batch.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

if __package__ == "export.serving.backends":
    from model_repository.onnx_contents import require_plain
else:  # in the server, where it is `<version>.model` and both files lie side by side
    from onnx_contents import require_plain  # type: ignore[import-not-found, no-redef]


class TritonPythonModel:
    """An ONNX graph whose tensors are named as in config.pbtxt."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session.

        Raises:
            OnnxError: the graph has weights in other files, or operators that are not ONNX's own.
        """
        config = json.loads(args["model_config"])
        self.inputs = [entry["name"] for entry in config["input"]]
        options = ort.SessionOptions()
        configured = config["parameters"].get("intra_op_thread_count", {}).get("string_value", "0")
        threads = usable_threads(configured)
        options.intra_op_num_threads = threads
        # Threads spin between the operators of a run, and stop when it ends: the other steps need the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Weights beside the arena, which holds nothing then but what can be given back.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        # A plan of all activations' places would keep 3 MB a size of batch, and saves no time (docs/measurements).
        options.enable_mem_pattern = False
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        require_plain(path)
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.warming_up = True
        self.turns = open_turns(threads)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Run all requests as one batch and give each its part."""
        names = sorted({name for request in requests for name in request.requested_output_names()})
        tensors = [{tensor.name(): tensor.as_numpy() for tensor in request.inputs()} for request in requests]
        if len(requests) == 1:
            feed = tensors[0]
        else:
            feed = {name: np.concatenate([tensor[name] for tensor in tensors]) for name in self.inputs}
        with self.turn():
            outputs = dict(zip(names, self.run(names, feed), strict=True))
        responses, start = [], 0
        for request, tensor in zip(requests, tensors, strict=True):
            end = start + len(tensor[self.inputs[0]])
            parts = [
                pb_utils.Tensor(name, outputs[name][start:end]) for name in request.requested_output_names()
            ]
            responses.append(pb_utils.InferenceResponse(parts))
            start = end
        return responses

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Compute while no other backbone does, where each computes with every core.

        Two runs side by side with a spinning thread a core each would take the cores from one another.
        """
        if self.turns is None:
            yield
            return
        fcntl.flock(self.turns, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self.turns, fcntl.LOCK_UN)

    def run(self, names: list[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the graph; the first run of one image gives back what reading it and warm-up's largest batch took."""
        if not self.warming_up or len(feed[self.inputs[0]]) > 1:
            return list(self.session.run(names, feed))
        self.warming_up = False
        shrinking = ort.RunOptions()
        shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        outputs = list(self.session.run(names, feed, shrinking))
        # glibc keeps what is freed: of a large student as much as its weights.
        ctypes.CDLL(None).malloc_trim(0)
        return outputs


def open_turns(threads: int) -> int | None:
    """The file that the launcher names for backbones to take turns with; None where two runs fit side by side."""
    path = os.environ.get("ASTMFR_TURNS")
    if path is None or 2 * threads <= len(os.sched_getaffinity(0)) or threads == 1:
        return None
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def usable_threads(configured: str) -> int:
    """Threads of a run: those that the launcher asks for, else the configured ones, on as many cores at most."""
    cores = len(os.sched_getaffinity(0))
    asked = int(os.environ.get("ASTMFR_INTRA_OP_THREADS", configured))
    return min(asked or cores, cores)
