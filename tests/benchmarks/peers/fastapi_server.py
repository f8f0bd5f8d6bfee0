"""The checkpoint in torch, eager, behind FastAPI: one uvicorn worker, one POST an image."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from model_repository.distance_fusion.map_fusion import Verdict, fuse_distances, judge
from model_repository.image_size import height_width
from train.checkpoint.tensors import Checkpoint, load_checkpoint


def predict(checkpoint: Checkpoint, pixels: bytes) -> Verdict:
    """The verdict on one image, [H, W, 3] uint8 as raw bytes."""
    shape = (1, *height_width(checkpoint.config.image_size), 3)
    image = torch.from_numpy(np.frombuffer(pixels, np.uint8).reshape(shape).copy())
    with torch.inference_mode():
        distances = checkpoint.student.distances(
            image, checkpoint.teacher(image), scale=checkpoint.config.distance_scale
        )
    fused = fuse_distances([distance.numpy() for distance in distances], checkpoint.calibration.fusion)
    return judge(fused, checkpoint.calibration)


def create_app(checkpoint: Checkpoint) -> FastAPI:
    """POST /predict takes raw RGB bytes; the map comes back as float32 bytes, the rest in headers."""
    app = FastAPI()

    @app.get("/ready")
    async def ready() -> bool:
        return True

    @app.post("/predict")
    async def answer(request: Request) -> Response:
        verdict = await run_in_threadpool(predict, checkpoint, await request.body())
        headers = {
            "x-score": repr(float(verdict.pred_score[0, 0])),
            "x-label": str(bool(verdict.pred_label[0, 0])),
            "x-threshold": repr(float(verdict.threshold[0, 0])),
        }
        return Response(verdict.anomaly_map.tobytes(), headers=headers, media_type="application/octet-stream")

    return app


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.safetensors")
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    asked = parser.parse_args()
    checkpoint = load_checkpoint(asked.checkpoint)
    checkpoint.teacher.eval()
    checkpoint.student.eval()
    uvicorn.run(create_app(checkpoint), host="127.0.0.1", port=asked.port, access_log=False)


if __name__ == "__main__":
    main()
