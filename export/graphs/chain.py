"""Teacher, then student, in ONNX Runtime on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from export.graphs.fp16 import LARGEST_HALF, LARGEST_OUTPUT, watch_overflow
from export.manifest import GraphFiles
from export.tensors import STUDENT_OUTPUTS, TEACHER_OUTPUTS

Images = NDArray[np.uint8]
Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class OnnxChain:
    """Sessions of both graphs of a build."""

    teacher: ort.InferenceSession
    student: ort.InferenceSession

    @classmethod
    def open(cls, files: GraphFiles, *, threads: int = 0) -> OnnxChain:
        """Open both; `threads` 0 lets ONNX Runtime choose."""
        return cls(open_session(files.teacher, threads=threads), open_session(files.student, threads=threads))

    def run(self, images: Images) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
        """Distance maps [B, h, w] a stage and release ids [B, 1] of `images` [B, H, W, 3] uint8."""
        feed = {"image": images} | teacher_features(self.teacher, images)
        *distances, release = self.student.run(list(STUDENT_OUTPUTS), feed)
        return distances, release


@dataclass(frozen=True)
class HalfChain(OnnxChain):
    """Sessions of a half-precision build that notice what would overflow on a GPU."""

    @classmethod
    def open(cls, files: GraphFiles, *, threads: int = 0) -> HalfChain:
        """Open both graphs, watched; see `export.graphs.fp16.watch_overflow`."""
        watched = (watch_overflow(onnx.load(path)).SerializeToString() for path in files)
        return cls(*(open_session(graph, threads=threads) for graph in watched))

    def run(self, images: Images) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
        """As of any chain; the distances of an image whose activations overflow are NaN."""
        *features, reached = self.teacher.run([*TEACHER_OUTPUTS, LARGEST_OUTPUT], {"image": images})
        feed = {"image": images} | dict(zip(TEACHER_OUTPUTS, features, strict=True))
        *distances, release, reached_then = self.student.run([*STUDENT_OUTPUTS, LARGEST_OUTPUT], feed)
        fits = (reached <= LARGEST_HALF) & (reached_then <= LARGEST_HALF)
        for stage in distances:
            stage[~fits] = np.nan
        return distances, release


def teacher_features(teacher: ort.InferenceSession, images: Images) -> Feed:
    """The teacher's features [B, C_n, h_n, w_n] of `images` [B, H, W, 3] uint8, by name."""
    features = teacher.run(list(TEACHER_OUTPUTS), {"image": images})
    return dict(zip(TEACHER_OUTPUTS, features, strict=True))


def open_session(
    graph: Path | bytes, *, threads: int = 0, stop_spinning: bool = False
) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU.

    Args:
        graph: the file, or what would stand in it.
        threads: of a run; 0 lets ONNX Runtime choose.
        stop_spinning: idle threads sleep between runs instead of spinning, as the server's do.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if stop_spinning:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
