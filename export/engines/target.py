"""Whether an engine runs on the server that it is published for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from export.engines.gpu import local_gpu, version_numbers
from export.errors import PublishError
from export.records import EngineRecord
from model_repository.triton_release import SERVER_IMAGE

AMPERE = (8, 0)


@dataclass(frozen=True)
class TargetServer:
    """The server that will load the engines.

    Attributes:
        tensorrt: its version, `10.13.3` say; None: that of `image`, where the engine was built in it.
        compute_capability: of its GPU, `8.9` say; None: that of this machine's GPU.
        image: the container image that it runs in.
    """

    tensorrt: str | None = None
    compute_capability: str | None = None
    image: str = SERVER_IMAGE


def require_engines_run(records: Mapping[str, EngineRecord], server: TargetServer) -> None:
    """Check that the server can load each engine.

    Raises:
        PublishError: the server's TensorRT or GPU is another, or is not known.
    """
    for name, record in records.items():
        if sentence := misfit(f"The engine of the {name}", record, server):
            raise PublishError(sentence)


def misfit(what: str, record: EngineRecord, server: TargetServer) -> str | None:
    """Why the server cannot load an engine, in a sentence that begins with `what`; None where it can.

    Raises:
        ExportError: the server's TensorRT or compute capability cannot be read as a version.
    """
    return _other_tensorrt(what, record, server) or _other_gpu(what, record, server)


def _other_tensorrt(what: str, record: EngineRecord, server: TargetServer) -> str | None:
    if server.tensorrt is None:
        if record.image == server.image:
            return None
        return (
            f"{what} was built by TensorRT {record.tensorrt} outside of the server's image {server.image}; say which "
            "TensorRT the server has with --server-tensorrt, or build with --in-container."
        )
    built, wanted = version_numbers(record.tensorrt)[:3], version_numbers(server.tensorrt)[:3]
    if len(wanted) < 3:
        return (
            f"--server-tensorrt is {server.tensorrt}, and engines are bound to all of a version; give at least three "
            f"numbers, as in {record.tensorrt}."
        )
    compatible = record.options.version_compatible and built[0] == wanted[0] and built < wanted
    if built == wanted or compatible:
        return None
    return (
        f"{what} was built by TensorRT {record.tensorrt} and the server has {server.tensorrt}; an engine runs only on "
        "the TensorRT that built it; build it again there or with --in-container."
    )


def _other_gpu(what: str, record: EngineRecord, server: TargetServer) -> str | None:
    capability = server.compute_capability
    if capability is None:
        gpu = local_gpu()
        if gpu is None:
            return (
                f"{what} was built for compute capability {record.compute_capability} and this machine has no GPU; say "
                "what the server's is with --server-compute-capability."
            )
        capability = gpu.compute_capability
    built, wanted = version_numbers(record.compute_capability), version_numbers(capability)
    portable = record.options.hardware_compatibility == "ampere_plus" and min(built, wanted) >= AMPERE
    if portable or wanted == built:
        return None
    return (
        f"{what} was built for compute capability {record.compute_capability} ({record.gpu}) and the server's GPU has "
        f"{capability}; build it again on such a GPU, or on one of Ampere or later with --hardware-compatibility "
        "ampere_plus for all of those."
    )
