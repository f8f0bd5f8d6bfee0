"""Images and maps handed to a server on the same host through system shared memory instead of the wire."""

from __future__ import annotations

import math
import secrets
import time
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.utils.shared_memory as shm
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS

# The server uses a region for a moment after it has answered.
IN_USE = "in use"
RELEASE_ATTEMPTS = 50
RELEASE_WAIT_S = 0.02
MAP_TYPES = {"anomaly_map": np.float32, "pred_mask": np.bool_}


class SharedRegion:
    """One region with the tensors of one request at a time: its images, then its anomaly maps and masks.

    Take the answer out of it before it is filled again.
    """

    def __init__(
        self, client: grpcclient.InferenceServerClient, *, batch: int, image_size: int, timeout_s: float
    ) -> None:
        """Create a region for up to `batch` images of `image_size` pixels and register it with the server.

        Raises:
            InferenceServerException: the server cannot open it; it is on another host, or in a container of its own.
        """
        self._client, self._timeout_s = client, timeout_s
        pixels = batch * image_size**2
        self._offsets = {"image": 0, "anomaly_map": 3 * pixels, "pred_mask": 7 * pixels}
        self._name = f"astmfr_{secrets.token_hex(8)}"
        size = 8 * pixels
        self._handle: Any = shm.create_shared_memory_region(self._name, self._name, size, create_only=True)
        try:
            client.register_system_shared_memory(self._name, f"/{self._name}", size, client_timeout=timeout_s)
        except BaseException:
            shm.destroy_shared_memory_region(self._handle)
            raise

    def put(self, pixels: NDArray[np.uint8]) -> grpcclient.InferInput:
        """Copy images [B, S, S, 3] into the region; returns the input tensor that refers to them."""
        shm.set_shared_memory_region(self._handle, [pixels], offset=self._offsets["image"])
        tensor = grpcclient.InferInput("image", list(pixels.shape), "UINT8")
        tensor.set_shared_memory(self._name, pixels.nbytes, self._offsets["image"])
        return tensor

    def request(self, name: str, shape: tuple[int, ...]) -> grpcclient.InferRequestedOutput:
        """Have a map of this shape written into the region; any other output comes over the wire."""
        output = grpcclient.InferRequestedOutput(name)
        if name in MAP_OUTPUTS:
            size = math.prod(shape) * np.dtype(MAP_TYPES[name]).itemsize
            output.set_shared_memory(self._name, size, self._offsets[name])
        return output

    def take(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """A copy of the map that the server wrote."""
        view = shm.get_contents_as_numpy(self._handle, MAP_TYPES[name], list(shape), self._offsets[name])
        return np.array(view)

    def close(self) -> None:
        """Unregister the region from the server, where that still runs, then free it."""
        try:
            for _ in range(RELEASE_ATTEMPTS):
                try:
                    self._client.unregister_system_shared_memory(self._name, client_timeout=self._timeout_s)
                    return
                except InferenceServerException as error:
                    if IN_USE not in str(error.message()):
                        return
                    time.sleep(RELEASE_WAIT_S)
        finally:
            shm.destroy_shared_memory_region(self._handle)
