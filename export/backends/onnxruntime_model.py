"""Triton Python backend: runs the `model.onnx` beside it with ONNX Runtime.

Published with a teacher, student or SAM where the server has no ONNX Runtime backend of its own. Requests
that wait together run as one batch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """An ONNX graph whose tensors are named as in config.pbtxt."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session; the launcher says how many threads the machine is good for."""
        config = json.loads(args["model_config"])
        self.inputs = [entry["name"] for entry in config["input"]]
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("ASTMFR_INTRA_OP_THREADS", "0"))
        # Threads spin between the operators of a run, and stop when it ends: the other steps need the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Run all requests as one batch and give each its part."""
        names = sorted({name for request in requests for name in request.requested_output_names()})
        tensors = [{tensor.name(): tensor.as_numpy() for tensor in request.inputs()} for request in requests]
        if len(requests) == 1:
            feed = tensors[0]
        else:
            feed = {name: np.concatenate([tensor[name] for tensor in tensors]) for name in self.inputs}
        outputs = dict(zip(names, self.session.run(names, feed), strict=True))
        responses, start = [], 0
        for request, tensor in zip(requests, tensors, strict=True):
            end = start + len(tensor[self.inputs[0]])
            parts = [
                pb_utils.Tensor(name, outputs[name][start:end]) for name in request.requested_output_names()
            ]
            responses.append(pb_utils.InferenceResponse(parts))
            start = end
        return responses
