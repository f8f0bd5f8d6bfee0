"""Triton Python backend for pictures that keep their own size: runs the graphs beside it, in strips where needed.

Published with a teacher or student of such pictures; `onnxruntime_model` and `picture_strips` lie beside it, and
`parts.json`, which names the parts that the network was cut into. A large picture runs through each part in strips of
so many pixels, which give what one pass over all of it gives. So the memory of a run does not grow with the picture,
but for what goes in, what passes between the parts, and what comes out.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
from pathlib import Path
from typing import Any

import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

if __package__ == "export.serving.backends":
    from export.serving.backends import onnxruntime_model
    from export.serving.backends.onnxruntime_model import open_turns, usable_threads
    from model_repository.onnx_contents import require_plain
    from model_repository.picture_strips import STEP, Part, run_parts
else:  # in the server, where it is `<version>.model` and all files lie side by side
    import onnxruntime_model  # type: ignore[import-not-found, no-redef]
    from onnx_contents import require_plain  # type: ignore[import-not-found, no-redef]
    from onnxruntime_model import open_turns, usable_threads  # type: ignore[no-redef]
    from picture_strips import STEP, Part, run_parts  # type: ignore[import-not-found, no-redef]

Tensors = dict[str, NDArray[Any]]


class RequestError(ValueError):
    """A picture that is not judged: the fault of who asked."""


class TritonPythonModel(onnxruntime_model.TritonPythonModel):
    """An ONNX graph in parts, whose tensors are named as in config.pbtxt, for one picture a request."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open a session for each part.

        Raises:
            OnnxError: a part has weights in other files, or operators that are not ONNX's own.
        """
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        self.max_pixels = int(parameters["max_pixels"])
        threads = usable_threads(parameters.get("intra_op_thread_count", "0"))
        folder = Path(args["model_repository"]) / args["model_version"]
        share_an_arena()
        described = json.loads((folder / "parts.json").read_text(encoding="utf-8"))
        self.parts = [self.open_part(folder, part, threads, last=part is described[-1]) for part in described]
        self.turns = open_turns(threads)
        self.size: tuple[int, ...] = ()  # of the picture before
        self.giving_back = False

    def open_part(self, folder: Path, described: dict[str, Any], threads: int, *, last: bool) -> Part:
        """A part of the network, ready to run; after the last one memory may be given back."""
        path = folder / described["file"]
        require_plain(path)
        session, outputs = open_session(path, threads), described["outputs"]

        def run(feed: Tensors) -> list[NDArray[Any]]:
            options = ort.RunOptions()
            if self.giving_back and last:
                options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            return list(session.run(outputs, feed, options))

        step, margin, pixels = (described[f"strip_{name}"] for name in ("step", "margin", "pixels"))
        return Part(run, described["inputs"], outputs, step, margin, pixels)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request; a fault in one is that one's error alone."""
        return [self.answer(request) for request in requests]

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        """The outputs of one request, or its error."""
        names = request.requested_output_names()
        try:
            feed = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            self.require_size(feed["image"].shape)
            busy = self.others_compute()
            with self.turn():
                outputs = self.run_parts(feed, busy=busy)
            return pb_utils.InferenceResponse([pb_utils.Tensor(name, outputs[name]) for name in names])
        except RequestError as error:
            fault = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # memory that does not suffice, say
            fault = pb_utils.TritonError(f"the picture cannot be judged ({type(error).__name__}: {error})")
        return pb_utils.InferenceResponse(error=fault)

    def require_size(self, shape: tuple[int, ...]) -> None:
        """Refuse a picture [B, H, W, 3] that the graph does not take.

        Raises:
            RequestError: more pixels than the release takes, or a side that is no multiple of 32.
        """
        height, width = shape[1:3]
        if height * width > self.max_pixels:
            raise RequestError(
                f"image is too large: {width} x {height} are {height * width / 1e6:,.1f} megapixels, and images are "
                f"judged at their own size up to {self.max_pixels / 1e6:,.4g}; cut it into parts, or publish with "
                "ASTMFR_NATIVE_MEGAPIXELS set to more"
            )
        if height % STEP or width % STEP or not height * width:
            raise RequestError(
                f"image has {height} rows and {width} columns; expected multiples of {STEP}, filled up at the right "
                "and below with its edge"
            )

    def others_compute(self) -> bool:
        """Whether another backbone has its turn, so that this one has to wait."""
        if self.turns is None:
            return False
        try:
            fcntl.flock(self.turns, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self.turns, fcntl.LOCK_UN)
        return False

    def run_parts(self, feed: Tensors, *, busy: bool) -> Tensors:
        """Run all parts over all of a picture.

        What a picture took is kept for the next one of that size, since a line has one camera. It is given back where
        the size is another, and where others compute: with several pictures on their way each backbone would keep its
        own.
        """
        shape = feed["image"].shape[1:3]
        self.giving_back, self.size = busy or shape != self.size, shape
        outputs = run_parts(self.parts, feed)
        if self.giving_back:
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what is freed
        return outputs


def share_an_arena() -> None:
    """Give all sessions one arena, which grows by what a run needs; the usual one doubles what it has."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"arena_extend_strategy": 1}))


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """A session of a part, in the arena of all."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # As in `onnxruntime_model`.
    for name, value in (
        ("session.use_env_allocators", "1"),
        ("session.intra_op.allow_spinning", "1"),
        ("session.force_spinning_stop", "1"),
        ("session.use_device_allocator_for_initializers", "1"),
    ):
        options.add_session_config_entry(name, value)
    options.enable_mem_pattern = False
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
