"""Images and maps handed to a server on the same host through system shared memory instead of the wire."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.utils.shared_memory as shm
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from client.judging.errors import NotAllowed, ServerError
from client.judging.faults import fault_of
from client.judging.retries import retrying
from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS

# The server uses a region for a moment after it has answered.
IN_USE = "in use"
RELEASE_ATTEMPTS = 50
RELEASE_WAIT_S = 0.02
MAP_TYPES = {"anomaly_map": np.float32, "pred_mask": np.bool_}
BYTES_A_PIXEL = 8  # three of the image, four of its map, one of its mask
FOLDER = Path("/dev/shm")


class SharedRegion:
    """One region with the tensors of one request at a time: its images, then its anomaly maps and masks.

    Take the answer out of it before it is filled again.
    """

    def __init__(
        self, client: grpcclient.InferenceServerClient, *, batch: int, image_size: int, timeout_s: float
    ) -> None:
        """Create a region for up to `batch` images of `image_size` pixels and register it with the server.

        Raises:
            ServerError: this machine has no room for it.
            InferenceServerException: the server cannot open it; it is on another host, or in a container of its own.
        """
        self._client, self._timeout_s = client, timeout_s
        self.in_doubt = False  # a call was lost whose answer the server may still write into it
        pixels = batch * image_size**2
        self._offsets = {"image": 0, "anomaly_map": 3 * pixels, "pred_mask": 7 * pixels}
        self.size = BYTES_A_PIXEL * pixels
        self._name = f"astmfr_{secrets.token_hex(8)}"
        self._handle = _create(self._name, self.size)
        try:
            self.register()
        except BaseException:
            self.free()
            raise

    def register(self) -> None:
        """Tell the server of the region; again where the server was started again.

        Raises:
            InferenceServerException: the server cannot open it.
        """
        self._client.register_system_shared_memory(
            self._name, f"/{self._name}", self.size, client_timeout=self._timeout_s
        )

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

    def unregister(self, *, attempts: int = RELEASE_ATTEMPTS) -> bool:
        """Have the server let go of the region, where that still runs; says whether it did."""
        for attempt in range(attempts):
            if attempt:
                time.sleep(RELEASE_WAIT_S)
            try:
                self._client.unregister_system_shared_memory(self._name, client_timeout=self._timeout_s)
                return True
            except InferenceServerException as error:
                if IN_USE not in str(error.message()):
                    return False
            except ValueError:  # the channel is closed
                return False
        return False

    def free(self) -> None:
        """Free this process's half of the region; the server keeps its own until it unregisters."""
        shm.destroy_shared_memory_region(self._handle)


class SharedRegions:
    """The regions of one connection, each with one request at a time; threads may share it."""

    def __init__(self, client: grpcclient.InferenceServerClient, *, url: str) -> None:
        self._client, self._url = client, url
        self._lock = threading.Lock()
        self._open: set[SharedRegion] = set()
        self._spare: list[SharedRegion] = []
        self._abandoned: list[SharedRegion] = []

    def new(self, *, batch: int, image_size: int, timeout_s: float) -> SharedRegion:
        """A new region for up to `batch` images of `image_size` pixels.

        Raises:
            ServerError: this machine has no room for it, or the server does not see this host's memory.
            InferenceServerException: the server does not answer.
        """
        try:
            region = retrying(
                lambda: SharedRegion(self._client, batch=batch, image_size=image_size, timeout_s=timeout_s),
                url=self._url,
                timeout_s=timeout_s,
            )
        except InferenceServerException as error:
            if fault_of(error).kind is NotAllowed:
                raise NotAllowed(
                    f"The server at {self._url} takes no shared memory of clients; ask without it, or start the server "
                    "with `deploy serve --client-shm`."
                ) from None
            if "DEADLINE_EXCEEDED" in str(error.status()) or "UNAVAILABLE" in str(error.status()):
                raise
            raise self.unseen(error) from None
        with self._lock:
            self._open.add(region)
        self._forget_abandoned()
        return region

    def unseen(self, error: InferenceServerException) -> ServerError:
        """That the server cannot open a region of this host."""
        return ServerError(
            f"The server at {self._url} does not see this host's shared memory ({error.message()}); ask without it, or "
            "run the client where the server's /dev/shm is."
        )

    def take(
        self, spare: list[SharedRegion], *, batch: int, image_size: int, timeout_s: float
    ) -> SharedRegion:
        """The last of `spare`, or a new region where there is none of that size.

        Raises:
            ServerError, InferenceServerException: as `new`.
        """
        with self._lock:
            region = spare.pop() if spare else None
        if region is not None and region.size == BYTES_A_PIXEL * batch * image_size**2:
            return region
        if region is not None:
            self.close(region)
        return self.new(batch=batch, image_size=image_size, timeout_s=timeout_s)

    def close(self, region: SharedRegion) -> None:
        """Unregister a region whose request was answered, and free it."""
        if self._is_mine(region):
            try:
                region.unregister()
            finally:
                region.free()

    def give_back(self, region: SharedRegion, spare: list[SharedRegion]) -> None:
        """Keep a region whose request was answered for the next one."""
        if region.in_doubt:
            self.abandon(region)
            return
        with self._lock:
            spare.append(region)

    def abandon(self, region: SharedRegion) -> None:
        """Never use a region again, into which the server may still write: its request failed or was given up."""
        if self._is_mine(region):
            region.free()
            with self._lock:
                self._abandoned.append(region)

    @contextlib.contextmanager
    def lend(self, *, batch: int, image_size: int, timeout_s: float) -> Iterator[SharedRegion]:
        """A region for one request; it is kept for the next one where the answer came.

        Raises:
            ServerError, InferenceServerException: as `new`.
        """
        region = self.take(self._spare, batch=batch, image_size=image_size, timeout_s=timeout_s)
        try:
            yield region
        except BaseException:
            self.abandon(region)
            raise
        self.give_back(region, self._spare)

    def close_all(self) -> None:
        """Unregister and free all regions, those of streams too."""
        with self._lock:
            regions = list(self._open)
            self._spare.clear()
        for region in regions:
            self.close(region)
        self._forget_abandoned(attempts=RELEASE_ATTEMPTS)

    def _is_mine(self, region: SharedRegion) -> bool:
        """Whether a region is open; it is not from then on."""
        with self._lock:
            known = region in self._open
            self._open.discard(region)
        return known

    def _forget_abandoned(self, *, attempts: int = 1) -> None:
        """Unregister abandoned regions that the server is done with."""
        with self._lock:
            abandoned, self._abandoned = self._abandoned, []
        in_use = [region for region in abandoned if not region.unregister(attempts=attempts)]
        with self._lock:
            self._abandoned += in_use


def _create(name: str, size: int) -> Any:
    """Shared memory of `size` bytes, all of them there: writing to what is not ends a process with a bus error.

    Raises:
        ServerError: this machine has no room for it.
    """
    try:
        handle = shm.create_shared_memory_region(name, name, size, create_only=True)
        try:
            # Where shared memory lies elsewhere, nothing is known of its room.
            with contextlib.suppress(FileNotFoundError), (FOLDER / name).open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except BaseException:
            shm.destroy_shared_memory_region(handle)
            raise
    except (OSError, shm.SharedMemoryException) as error:
        cause = error.__cause__ or error
        raise ServerError(
            f"Shared memory of {size:,} bytes cannot be had in {FOLDER} ({getattr(cause, 'strerror', None) or cause}); "
            "ask without it, with fewer requests in flight or smaller batches, or give /dev/shm more room."
        ) from None
    return handle
