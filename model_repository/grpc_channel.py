"""How a program of this project connects to a Triton server; the server itself passes over this file."""

from __future__ import annotations

import tritonclient.grpc as grpcclient


def open_channel(url: str) -> grpcclient.InferenceServerClient:
    """A gRPC channel to `host:port`, to be closed by the caller; it connects when the first call is made."""
    return grpcclient.InferenceServerClient(url)
