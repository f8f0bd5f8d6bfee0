"""A process that decodes and fuses what it is sent, and says what came of it; it may die of it.

A request is a letter (`P` picture, `F` fusion), a length in 4 bytes, and as many bytes. The answer is a line of JSON.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from model_repository.distance_fusion import (
    fusion_calibration,
    fusion_matrices,
    fusion_regions,
    fusion_shown,
    map_fusion,
    verdict_metrics,
)
from model_repository.image_decoder import image_decoding, picture_limits, resizing
from tests.model_repository import server_stub
from tests.model_repository.test_not_finite import CALIBRATION

SIZE = 64


def decoder() -> Any:
    sys.modules |= {
        "image_decoding": image_decoding,
        "picture_limits": picture_limits,
        "resizing": resizing,
    }
    step = server_stub.load_step("image_decoder")
    step.image_size, step.bit_depth = (SIZE, SIZE), 12
    return step


def fusion() -> Any:
    sys.modules |= {
        "map_fusion": map_fusion,
        "fusion_calibration": fusion_calibration,
        "fusion_matrices": fusion_matrices,
        "fusion_regions": fusion_regions,
        "fusion_shown": fusion_shown,
        "verdict_metrics": verdict_metrics,
    }
    step = server_stub.load_step("distance_fusion")
    step.code_id, step.folders, step.read = "fuzzing", (Path("/nonexistent"),), {}
    find = step.calibration
    step.calibration = lambda weights_id: (
        CALIBRATION if weights_id == CALIBRATION.release_id else find(weights_id)
    )
    return step


def picture_request(content: bytes) -> server_stub.Request:
    return server_stub.Request({"encoded_image": np.array([[content]], np.object_)})


def fusion_request(content: bytes) -> server_stub.Request:
    values = json.loads(content)
    with np.errstate(all="ignore"):
        tensors = {
            name: np.full(shape, np.float64(value)).astype(kind)
            for name, (kind, shape, value) in values["tensors"].items()
        }
    return server_stub.Request(tensors, values["outputs"], values["parameters"])


def most_mb() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def answer(step: Any, request: server_stub.Request) -> dict[str, Any]:
    """What a step says to a request, how long it took the processor, and how much memory the process had at most."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # begins to measure the most anew
    started = time.process_time()
    response = step.execute([request])[0]
    said: dict[str, Any] = {"seconds": time.process_time() - started, "mb": most_mb()}
    if response.error is not None:
        return said | {"error": str(response.error), "code": response.error.code}
    return said | {
        "tensors": {
            tensor.name(): [
                str(tensor.value.dtype),
                list(tensor.value.shape),
                bool(np.isfinite(tensor.value).all()),
            ]
            for tensor in response.tensors
        }
    }


def main() -> None:
    """Answer until there are no more requests."""
    warnings.simplefilter("ignore")
    sys.modules["triton_python_backend_utils"] = server_stub.PB_UTILS
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries have to say of damage
    steps = {b"P": (decoder(), picture_request), b"F": (fusion(), fusion_request)}
    while head := sys.stdin.buffer.read(5):
        step, make = steps[head[:1]]
        content = sys.stdin.buffer.read(struct.unpack(">I", head[1:])[0])
        try:
            said = answer(step, make(content))
        except Exception as error:  # would have failed all requests of a batch
            said = {"raised": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
