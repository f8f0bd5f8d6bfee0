"""The same ONNX graphs in one function under pytriton's `@batch`; runs in the server's own environment, .triton/."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from pytriton.decorators import batch  # type: ignore[import-not-found]
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor  # type: ignore[import-not-found]
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig  # type: ignore[import-not-found]

from model_repository.distance_fusion.map_fusion import Calibration, fuse_distances, judge
from model_repository.image_size import square_side

FEATURES = ("teacher_1", "teacher_2", "teacher_3")
DISTANCES = ("distance_1", "distance_2", "distance_3")


def create_infer_func(build: Path, calibration: Calibration) -> Any:
    """Teacher, student and fusion of a batch."""
    teacher, student = (
        onnxruntime.InferenceSession(build / name, providers=["CPUExecutionProvider"])
        for name in ("teacher.onnx", "student.onnx")
    )

    @batch  # type: ignore[untyped-decorator]
    def infer(image: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        features = dict(zip(FEATURES, teacher.run(FEATURES, {"image": image}), strict=True))
        *distances, release_id = student.run((*DISTANCES, "release_id"), {"image": image, **features})
        return {
            **vars(judge(fuse_distances(distances, calibration.fusion), calibration)),
            "release_id": release_id,
        }

    return infer


def output_tensors(size: int) -> list[Tensor]:
    """The ensemble's outputs, of images of one size."""
    return [
        Tensor(name="anomaly_map", dtype=np.float32, shape=(size, size)),
        Tensor(name="pred_score", dtype=np.float32, shape=(1,)),
        Tensor(name="pred_label", dtype=np.bool_, shape=(1,)),
        Tensor(name="pred_mask", dtype=np.bool_, shape=(size, size)),
        Tensor(name="threshold", dtype=np.float32, shape=(1,)),
        Tensor(name="release_id", dtype=np.int64, shape=(1,)),
    ]


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--build", type=Path, required=True, help="folder with both graphs and calibration.json"
    )
    parser.add_argument("--model", required=True, help="name to serve under")
    parser.add_argument("--workspace", type=Path, required=True, help="folder that pytriton makes for itself")
    parser.add_argument("--max-batch-size", type=int, required=True, help="images a batch, at most")
    parser.add_argument("--ports", type=int, nargs=3, required=True, help="TCP ports: HTTP, gRPC, metrics")
    asked = parser.parse_args()
    http, grpc, metrics = asked.ports
    calibration = Calibration.load(asked.build / "calibration.json")
    size = square_side(calibration.image_size)
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=http,
        grpc_address="127.0.0.1",
        grpc_port=grpc,
        metrics_address="127.0.0.1",
        metrics_port=metrics,
    )
    # perf_analyzer reads the statistics, which pytriton hides behind a token.
    security = TritonSecurityConfig(restricted_endpoints=[])
    with Triton(config=config, workspace=asked.workspace, security_config=security) as triton:
        triton.bind(
            model_name=asked.model,
            infer_func=create_infer_func(asked.build, calibration),
            inputs=[Tensor(name="image", dtype=np.uint8, shape=(size, size, 3))],
            outputs=output_tensors(size),
            config=ModelConfig(max_batch_size=asked.max_batch_size, batcher=DynamicBatcher()),
        )
        triton.serve()


if __name__ == "__main__":
    main()
