"""Ask a Triton server for verdicts over gRPC; needs neither torch nor onnx.

from client import JudgeClient, load_image

with JudgeClient("localhost:8001", category="pill", timeout_s=5) as judge:
    verdict = judge.predict(load_image("part.png"))
    print(verdict.score, verdict.threshold, verdict.anomalous, verdict.release_id)
"""

import os

# A failed handshake is an error here, told once; gRPC would write of it to standard error as well.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from client.judging.connection import JudgeClient
from client.judging.errors import (
    ClientError,
    DeadlineExceeded,
    NotServed,
    Overloaded,
    RefusedImage,
    RequestError,
    ServerError,
    ServerFault,
    Unreachable,
)
from client.judging.verdicts import Score, Verdict
from client.pictures.images import load_image
from model_repository.grpc_endpoint import Endpoint, Tls

__all__ = [
    "ClientError",
    "DeadlineExceeded",
    "Endpoint",
    "JudgeClient",
    "NotServed",
    "Overloaded",
    "RefusedImage",
    "RequestError",
    "Score",
    "ServerError",
    "ServerFault",
    "Tls",
    "Unreachable",
    "Verdict",
    "load_image",
]
