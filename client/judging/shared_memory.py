"""Images and maps handed to a server on the same host through system shared memory instead of the wire."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.utils.shared_memory as shm
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from client.core.errors import NotAllowed, ServerError
from client.core.faults import fault_of
from client.core.requests import MAP_TYPES, Place
from client.judging.calls import retrying
from model_repository.image_size import ImageSize

# The server uses a region for a moment after it has answered.
IN_USE = "in use"
RELEASE_ATTEMPTS = 50
RELEASE_WAIT_S = 0.02
RELEASE_TIMEOUT_S = 3.0  # nobody waits longer for a server that answers nothing, only to tidy up there
FOLDER = Path("/dev/shm")


class SharedRegion:
    """One region with the tensors of one request at a time: its images, then its anomaly maps and masks.

    Take the answer out of it before it is filled again.
    """

    def __init__(
        self, client: grpcclient.InferenceServerClient, *, batch: int, image_size: ImageSize, timeout_s: float
    ) -> None:
        """Create a region for up to `batch` images of that size and register it with the server.

        Raises:
            ServerError: this machine has no room for it.
            InferenceServerException: the server cannot open it; it is on another host, or in a container of its own.
        """
        self._client, self._timeout_s = client, timeout_s
        self.in_doubt = False  # a call was lost whose answer the server may still write into it
        self.place = Place(f"astmfr_{secrets.token_hex(8)}", batch, image_size)
        self._handle = _create(self.place.name, self.place.size)
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
            self.place.name, f"/{self.place.name}", self.place.size, client_timeout=self._timeout_s
        )

    def put(self, pixels: NDArray[np.uint8]) -> None:
        """Copy images [B, H, W, 3] into the region."""
        shm.set_shared_memory_region(self._handle, [pixels], offset=self.place.offset("image"))

    def take(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """A copy of the map that the server wrote."""
        view = shm.get_contents_as_numpy(self._handle, MAP_TYPES[name], list(shape), self.place.offset(name))
        return np.array(view)

    def unregister(self, *, attempts: int = RELEASE_ATTEMPTS) -> bool:
        """Have the server let go of the region; says whether it did, or still uses it.

        Raises:
            InferenceServerException: the server does not answer.
        """
        for attempt in range(attempts):
            if attempt:
                time.sleep(RELEASE_WAIT_S)
            try:
                self._client.unregister_system_shared_memory(
                    self.place.name, client_timeout=min(self._timeout_s, RELEASE_TIMEOUT_S)
                )
                return True
            except InferenceServerException as error:
                if IN_USE not in str(error.message()):
                    raise
            except ValueError:  # the channel is closed
                return False
        return False

    def free(self) -> None:
        """Free this process's half of the region; the server keeps its own until it unregisters."""
        shm.destroy_shared_memory_region(self._handle)


class SharedRegions:
    """The regions of one connection, each with one request at a time; threads may share it.

    A region belongs to its request from the start until that has ended. Where nobody knows whether it has, after a
    deadline, an error or a wait that was given up, the region is abandoned: no request gets it again, and the server
    lets go of it when it is done with it.
    """

    def __init__(self, client: grpcclient.InferenceServerClient, *, url: str) -> None:
        self._client, self._url = client, url
        self._lock = threading.Lock()
        self._open: set[SharedRegion] = set()
        self._abandoned: list[SharedRegion] = []
        self._forgetting = threading.Lock()  # held by the thread that has the abandoned ones in its hands

    def new(self, *, batch: int, image_size: ImageSize, timeout_s: float) -> SharedRegion:
        """A new region for up to `batch` images of that size.

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
        self.forget_abandoned()
        return region

    def unseen(self, error: InferenceServerException) -> ServerError:
        """That the server cannot open a region of this host."""
        return ServerError(
            f"The server at {self._url} does not see this host's shared memory ({error.message()}); ask without it, or "
            "run the client where the server's /dev/shm is."
        )

    def close(self, region: SharedRegion) -> None:
        """Unregister a region whose request was answered, and free it."""
        if self._is_mine(region):
            try:
                with contextlib.suppress(InferenceServerException):
                    region.unregister()
            finally:
                region.free()

    def abandon(self, region: SharedRegion) -> None:
        """Never use a region again, into which the server may still write: its request failed or was given up."""
        if self._is_mine(region):
            region.free()
            with self._lock:
                self._abandoned.append(region)

    def close_all(self) -> None:
        """Unregister and free all regions, those of streams too."""
        with self._lock:
            regions = list(self._open)
        for region in regions:
            self.close(region)
        self.forget_abandoned(attempts=RELEASE_ATTEMPTS)

    def _is_mine(self, region: SharedRegion) -> bool:
        """Whether a region is open; it is not from then on."""
        with self._lock:
            known = region in self._open
            self._open.discard(region)
        return known

    def forget_abandoned(self, *, attempts: int = 1) -> None:
        """Unregister abandoned regions that the server is done with; several attempts wait for another thread."""
        if not self._forgetting.acquire(blocking=attempts > 1):
            return  # another thread is at it
        try:
            self._forget(attempts)
        finally:
            self._forgetting.release()

    def _forget(self, attempts: int) -> None:
        with self._lock:
            abandoned, self._abandoned = deque(self._abandoned), []
        in_use = []
        with contextlib.suppress(InferenceServerException):  # the others would not be answered either
            while abandoned:
                if not abandoned[0].unregister(attempts=attempts):
                    in_use.append(abandoned[0])
                abandoned.popleft()
        with self._lock:
            self._abandoned += [*in_use, *abandoned]


class Lender:
    """Regions for requests of one size of batch, each kept for the next request once its own has been answered.

    Without shared memory it lends None.
    """

    def __init__(self, regions: SharedRegions | None, *, batch: int) -> None:
        """Lend regions with room for `batch` images."""
        self._regions, self._batch = regions, batch
        self._lock = threading.Lock()
        self._spare: list[SharedRegion] = []

    def take(self, *, image_size: ImageSize, timeout_s: float) -> SharedRegion | None:
        """A region that nobody uses, for images of that size.

        Raises:
            ServerError, InferenceServerException: as `SharedRegions.new`.
        """
        if self._regions is None:
            return None
        with self._lock:
            region = self._spare.pop() if self._spare else None
        if region is not None and region.place.image_size == image_size:
            return region
        if region is not None:
            self._regions.close(region)
        return self._regions.new(batch=self._batch, image_size=image_size, timeout_s=timeout_s)

    def give_back(self, region: SharedRegion | None) -> None:
        """Keep a region whose request was answered for the next one."""
        if region is None or self._regions is None:
            return
        if region.in_doubt:
            self._regions.abandon(region)
            return
        with self._lock:
            self._spare.append(region)

    def abandon(self, region: SharedRegion | None) -> None:
        """Let no request have a region again, into which the server may still write."""
        if region is not None and self._regions is not None:
            self._regions.abandon(region)

    def close(self) -> None:
        """Free the regions that were given back, and those abandoned that the server is done with."""
        if self._regions is None:
            return
        with self._lock:
            regions, self._spare = self._spare, []
        for region in regions:
            self._regions.close(region)
        self._regions.forget_abandoned()


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
