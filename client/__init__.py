"""Ask a Triton server for verdicts over gRPC; needs neither torch nor onnx.

from client import JudgeClient, load_image

with JudgeClient("localhost:8001", category="pill", timeout_s=5) as judge:
    verdict = judge.predict(load_image("part.png"))
    print(verdict.score, verdict.threshold, verdict.anomalous, verdict.release_id)
"""

from client.judging.connection import JudgeClient
from client.judging.errors import ClientError
from client.judging.verdicts import Score, Verdict
from client.pictures.images import load_image

__all__ = ["ClientError", "JudgeClient", "Score", "Verdict", "load_image"]
