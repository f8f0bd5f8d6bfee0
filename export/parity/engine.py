"""TensorRT's engines as a judge, on the GPU they were built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.engines.gpu import require_gpu
from export.engines.tensorrt_builder import load_tensorrt, start
from export.errors import ExportError
from export.manifest import engine_path, read_manifest, require_engines
from export.parity.judges import GraphJudge, Images
from export.tensors import DISTANCES, TEACHER_OUTPUTS
from model_repository.distance_fusion.map_fusion import Calibration


class Engine:
    """A plan on the GPU; its tensors stay there."""

    def __init__(self, trt: ModuleType, path: Path, *, version_compatible: bool) -> None:
        """Load a plan; a version-compatible one carries a runtime of its own, which has to be allowed.

        Raises:
            ExportError: another TensorRT built it, or one for another GPU.
        """
        runtime = start(trt, trt.Runtime, trt.Logger(trt.Logger.ERROR))
        if version_compatible:
            runtime.engine_host_code_allowed = True
        self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ExportError(
                f"TensorRT {trt.__version__} cannot load {path}; build it again on this machine with `export engine`."
            )
        self._context = self._engine.create_execution_context()
        tensors = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self._outputs = [
            name for name in tensors if self._engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT
        ]

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs of one batch, by name.

        Raises:
            ExportError: a shape outside the engine's profile, or TensorRT cannot run.
        """
        contiguous = {name: tensor.contiguous() for name, tensor in inputs.items()}  # alive until it has run
        for name, tensor in contiguous.items():
            if not self._context.set_input_shape(name, tuple(tensor.shape)):
                raise ExportError(
                    f"An engine takes no {name} of shape {list(tensor.shape)}; build it again with --min-batch 1."
                )
            self._context.set_tensor_address(name, tensor.data_ptr())
        outputs = {}
        for name in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            outputs[name] = torch.empty(shape, dtype=_torch_type(self._engine, name), device="cuda")
            self._context.set_tensor_address(name, outputs[name].data_ptr())
        stream = torch.cuda.current_stream()
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise ExportError("TensorRT could not run an engine; its own messages above say why.")
        stream.synchronize()
        return outputs


@dataclass(frozen=True)
class EnginePair:
    """teacher.plan and student.plan on the GPU."""

    teacher: Engine
    student: Engine

    def run(self, images: Images) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
        """Distance maps [B, h, w] a stage and release ids [B, 1] of `images` [B, H, W, 3] uint8."""
        image = torch.from_numpy(images).cuda()
        features = self.teacher.run({"image": image})
        answers = self.student.run({"image": image, **{name: features[name] for name in TEACHER_OUTPUTS}})
        distances = [answers[name].float().cpu().numpy() for name in DISTANCES]
        return distances, answers["release_id"].cpu().numpy()


def engine_judge(folder: Path, calibration: Calibration) -> GraphJudge:
    """The engines of a build as a judge.

    Raises:
        ExportError: no engines, no TensorRT, no GPU that torch can use, or engines built by another TensorRT or for
            another GPU.
    """
    manifest = read_manifest(folder)
    records = require_engines(folder, manifest)
    trt, gpu = load_tensorrt(), require_gpu()
    if not torch.cuda.is_available():
        raise ExportError(f"torch {torch.__version__} cannot use {gpu.name}; install a CUDA build of torch.")
    engines = {
        name: Engine(trt, engine_path(folder, name), version_compatible=record.options.version_compatible)
        for name, record in records.items()
    }
    batch_size = min(record.options.max_batch for record in records.values())
    return GraphJudge(f"TensorRT {manifest.precision}", EnginePair(**engines).run, calibration, batch_size)


def _torch_type(engine: Any, name: str) -> torch.dtype:
    """torch's name for a type of the teacher's and student's tensors."""
    types = {"FLOAT": torch.float32, "HALF": torch.float16, "INT64": torch.int64}
    return types[engine.get_tensor_dtype(name).name]
