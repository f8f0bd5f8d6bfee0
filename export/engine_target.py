"""Whether an engine runs on the server that it is published for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from export.errors import PublishError
from export.gpu import local_gpu, version_numbers
from export.manifest import EngineRecord
from export.server_image import SERVER_IMAGE

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
    """Each engine is one that the server can load.

    Raises:
        PublishError: of another TensorRT or GPU, both named; or the server's is not known.
    """
    for name, record in records.items():
        _require_tensorrt(name, record, server)
        _require_gpu(name, record, server)


def _require_tensorrt(name: str, record: EngineRecord, server: TargetServer) -> None:
    if server.tensorrt is None:
        if record.image == server.image:
            return
        raise PublishError(
            f"The engine of the {name} was built by TensorRT {record.tensorrt} outside of the server's image "
            f"{server.image}; say which TensorRT the server has with --server-tensorrt, or build with --in-container."
        )
    built, wanted = version_numbers(record.tensorrt), version_numbers(server.tensorrt)
    if record.options.version_compatible and built[0] == wanted[0]:
        fits = built[: len(wanted)] <= wanted
    else:
        fits = built[: len(wanted)] == wanted and len(wanted) >= 3
    if not fits:
        raise PublishError(
            f"The engine of the {name} was built by TensorRT {record.tensorrt} and the server has {server.tensorrt}; "
            "an engine runs only on the TensorRT that built it; build it again there or with --in-container."
        )


def _require_gpu(name: str, record: EngineRecord, server: TargetServer) -> None:
    capability = server.compute_capability
    if capability is None:
        gpu = local_gpu()
        if gpu is None:
            raise PublishError(
                f"The engine of the {name} was built for compute capability {record.compute_capability} and this "
                "machine has no GPU; say what the server's is with --server-compute-capability."
            )
        capability = gpu.compute_capability
    wanted = version_numbers(capability)
    portable = record.options.hardware_compatibility == "ampere_plus" and wanted >= AMPERE
    if not portable and wanted != version_numbers(record.compute_capability):
        raise PublishError(
            f"The engine of the {name} was built for compute capability {record.compute_capability} ({record.gpu}) and "
            f"the server's GPU has {capability}; build it again on such a GPU, or on any of Ampere or later with "
            "--hardware-compatibility ampere_plus."
        )
