"""Ask a Triton server for verdicts over gRPC; needs neither torch nor onnx.

from client import JudgeClient

with JudgeClient("localhost:8001", category="pill", timeout_s=5) as judge:
    verdict = judge.judge("part.png")
    print(verdict.score, verdict.threshold, verdict.anomalous, verdict.release_id)
    print([(defect.left, defect.top, defect.area) for defect in verdict.defects])

`AsyncJudgeClient` has the same names, for programs with an event loop.
"""

import os

# A failed handshake is an error here, told once; gRPC would write of it to standard error as well.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from client.core.defects import Defect
from client.core.errors import (
    ClientError,
    DeadlineExceeded,
    ImageFileError,
    ImageTypeError,
    NotAllowed,
    NotServed,
    Overloaded,
    RefusedImage,
    RequestError,
    ServerError,
    ServerFault,
    Unreachable,
)
from client.core.verdicts import Failure, Score, Verdict
from client.judging.async_connection import AsyncJudgeClient
from client.judging.connection import JudgeClient
from client.pictures.images import load_image
from model_repository.grpc_endpoint import Endpoint, Tls

__all__ = [
    "AsyncJudgeClient",
    "ClientError",
    "DeadlineExceeded",
    "Defect",
    "Endpoint",
    "Failure",
    "ImageFileError",
    "ImageTypeError",
    "JudgeClient",
    "NotAllowed",
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
