"""A gRPC server that answers as Triton would, or as a test wants it: refusals, late answers, answers that are none."""

# ruff: noqa: N802 (the methods are called as gRPC's service names them)
from __future__ import annotations

import contextlib
import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from client import JudgeClient
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS
from model_repository.image_decoder.resizing import resize_image
from model_repository.image_size import NATIVE

SIZE = 8
MAX_BATCH = 4
RELEASE = 77
THRESHOLD = 100.0
TIMEOUT_S = 20.0
FULL_QUEUE = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
TYPES = {
    np.dtype(np.float32): "FP32",
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.int64): "INT64",
    np.dtype(np.int32): "INT32",
}
Outputs = dict[str, NDArray[Any]]
Refusal = tuple[grpc.StatusCode, str]


@dataclass
class Script:
    """What the server does; a test changes it while the server runs.

    Attributes:
        size: side of the images that the category takes; NATIVE where they keep their own.
        release_id: which judges.
        synthetic, max_batch, bit_depth, aspect: as its configuration says.
        refuse: called with the number of an inference, from 1 on; gives its error, or None to answer it.
        change: takes the outputs of an inference and changes them.
        delay_s: before an inference is answered.
        asked: the model and the number of images of every inference that was answered.
        probes: of each of those, whether it said that its images are no parts.
        tries: inferences that came in.
        room: inferences that may be worked on at a time; one more is refused, as by a full queue.
        registered: regions of shared memory, by name, as Triton knows them.
        used: the regions that inferences named, in their order.
        unregister_s: before a region's unregistering is answered.
        busy: how many inferences that are worked on name a region; it cannot be unregistered meanwhile.
    """

    size: int = SIZE
    release_id: int = RELEASE
    synthetic: bool = False
    max_batch: int = MAX_BATCH
    bit_depth: int = 8
    aspect: str = "stretch"
    refuse: Callable[[int], Refusal | None] = lambda number: None
    change: Callable[[Outputs], object] = lambda outputs: None
    delay_s: float = 0.0
    asked: list[tuple[str, int]] = field(default_factory=list)
    probes: list[bool] = field(default_factory=list)
    tries: int = 0
    room: int = 1000
    registered: set[str] = field(default_factory=set)
    used: list[str] = field(default_factory=list)
    unregister_s: float = 0.0
    busy: Counter[str] = field(default_factory=Counter)


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The calls that the client makes. An image's score is the mean of its pixels."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._lock = threading.Lock()
        self._working = 0

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        return service_pb2.ModelReadyResponse(ready=True)

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        config = model_config_pb2.ModelConfig(name=request.name, max_batch_size=self.script.max_batch)
        config.input.add(name="image", dims=[self.script.size, self.script.size, 3])
        for name in VERDICT_OUTPUTS:
            config.output.add(name=name)
        config.parameters["release_id"].string_value = str(self.script.release_id)
        config.parameters["bit_depth"].string_value = str(self.script.bit_depth)
        config.parameters["aspect"].string_value = self.script.aspect
        config.parameters["synthetic"].string_value = str(self.script.synthetic).lower()
        return service_pb2.ModelConfigResponse(config=config)

    def SystemSharedMemoryRegister(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.script.registered.add(request.name)
        return service_pb2.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(self.script.unregister_s)
        if self.script.busy[request.name]:
            context.abort(grpc.StatusCode.INTERNAL, f"cannot unregister region {request.name}: it is in use")
        self.script.registered.discard(request.name)
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._lock:
            self.script.tries += 1
            self._working += 1
            full = self._working > self.script.room
            refusal = FULL_QUEUE if full else self.script.refuse(self.script.tries)
            if name := request.inputs[0].parameters["shared_memory_region"].string_param:
                self.script.used.append(name)
                self.script.busy[name] += 1
        try:
            if refusal is not None:
                context.abort(*refusal)
            time.sleep(self.script.delay_s)
            return self.answer(request, context)
        finally:
            with self._lock:
                self._working -= 1
                self.script.busy[name] -= 1

    def answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        (tensor,) = request.inputs
        size = self.script.size  # of one release, although a test changes it meanwhile
        name = tensor.parameters["shared_memory_region"].string_param
        if name and name not in self.script.registered:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{name}'")
        try:
            images, sizes = self.images(request, size)
        except OSError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"encoded_image is not an image ({error})")
        if size != NATIVE and images.shape[1:3] != (size, size):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape for input 'image'")
        if len(images) > self.script.max_batch:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "inference request batch-size is too large")
        self.script.asked.append((request.model_name, len(images)))
        self.script.probes.append("probe" in request.parameters and request.parameters["probe"].bool_param)
        outputs = self.judge(images, request) | sizes
        self.script.change(outputs)
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for requested in request.outputs:
            if requested.name in outputs:
                value = outputs[requested.name]
                response.outputs.add(name=requested.name, datatype=TYPES[value.dtype], shape=value.shape)
                response.raw_output_contents.append(value.tobytes())
        return response

    def images(self, request: Any, size: int) -> tuple[NDArray[np.uint8], Outputs]:
        """The images of a request; with their sizes, of files."""
        (tensor,) = request.inputs
        if tensor.name == "image":
            if not request.raw_input_contents:  # in shared memory, which nobody looks into here
                return np.zeros(tuple(tensor.shape), np.uint8), {}
            return np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tuple(tensor.shape)), {}
        raw, images, sizes = request.raw_input_contents[0], [], []
        while raw:
            length = int.from_bytes(raw[:4], "little")
            picture = Image.open(io.BytesIO(raw[4 : 4 + length])).convert("RGB")
            images.append(resize_image(picture, size))
            sizes.append((picture.height, picture.width))
            raw = raw[4 + length :]
        return np.stack(images), {"original_size": np.array(sizes, np.int32)}

    def judge(self, images: NDArray[np.uint8], request: Any) -> Outputs:
        means = images.mean(axis=(1, 2, 3), dtype=np.float64).astype(np.float32)[:, None]
        asked = request.parameters["threshold"].string_param
        threshold = np.full_like(means, float(asked) if asked else THRESHOLD)
        maps = np.tile(means[:, :, None], (1, *images.shape[1:3]))
        return {
            "anomaly_map": maps,
            "pred_score": means,
            "pred_label": means > threshold,
            "pred_mask": maps > THRESHOLD,
            "threshold": threshold,
            "release_id": np.full(means.shape, self.script.release_id, np.int64),
        }


@contextlib.contextmanager
def scripted_server(script: Script, *, port: int = 0) -> Iterator[str]:
    """Serve a script on this host; gives host:port."""
    server = grpc.server(ThreadPoolExecutor(64))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(script), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def scripted_judge(
    script: Script, *, timeout_s: float = TIMEOUT_S, shared_memory: bool = False
) -> Iterator[JudgeClient]:
    """A client of a server that follows a script."""
    with (
        scripted_server(script) as url,
        JudgeClient(url, category="pill", timeout_s=timeout_s, shared_memory=shared_memory) as judge,
    ):
        yield judge


def grey(value: int) -> Image.Image:
    """An image whose score is `value`."""
    return Image.new("RGB", (SIZE, SIZE), (value, value, value))


def png(value: int) -> bytes:
    """Its file."""
    buffer = io.BytesIO()
    grey(value).save(buffer, format="PNG")
    return buffer.getvalue()
