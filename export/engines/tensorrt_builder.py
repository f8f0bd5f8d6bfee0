"""TensorRT's parser and builder, of whichever TensorRT is installed: `tensorrt` 10 or 11, or TensorRT for RTX.

They share one API, of which some lack parts; the code asks which parts there are. All networks are strongly typed: the
types are those of the graph. Neither torch nor onnx is imported, since this also runs inside NVIDIA's container.
"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from export.errors import ExportError, VerificationError
from export.records import EngineOptions
from export.tensors import STRIDES, TEACHER_OUTPUTS, TensorSpec

# The second holds the bindings alone, for libraries that were installed without pip, as in NVIDIA's container.
PACKAGES = ("tensorrt", "tensorrt_bindings")
RTX_PACKAGE = "tensorrt_rtx"
OLDEST_MAJOR = 10
SIDES = (32, 512, 2048)  # pixels, of images that keep their own size: least, usual and most
TRITON_TYPES = {"FLOAT": "FP32", "HALF": "FP16"}  # the others have the same name in both


@dataclass(frozen=True)
class BuiltEngine:
    """What TensorRT made of a graph.

    Attributes:
        tensorrt: version of the TensorRT that built it.
        n_layers: of the parsed network.
        inputs, outputs: without the batch, in Triton's types.
        seconds: for parsing and building.
        data: the engine itself.
        timing_cache: what was measured of the layers on this GPU; a later build starts from it.
    """

    tensorrt: str
    n_layers: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    seconds: float
    data: bytes
    timing_cache: bytes


def load_tensorrt() -> ModuleType:
    """TensorRT itself, which builds for the GPU it runs on.

    Raises:
        ExportError: it is not installed.
    """
    for name in PACKAGES:
        try:
            trt = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except ImportError as error:
            raise ExportError(
                f"TensorRT is installed and cannot be loaded ({error}); install it again."
            ) from None
        if int(trt.__version__.split(".")[0]) < OLDEST_MAJOR:
            raise ExportError(
                f"TensorRT {trt.__version__} knows no strongly typed networks; install version {OLDEST_MAJOR} or later."
            )
        return trt
    raise ExportError(
        "TensorRT, which builds engines for Triton, is not installed; `pip install 'astmfr[gpu]'` on a machine with an "
        "NVIDIA GPU or give --in-container; without it `export engine --check` and the platforms onnxruntime and "
        "python work."
    )


def load_tensorrt_rtx() -> ModuleType:
    """TensorRT for RTX, which builds ahead of time and needs no GPU.

    Raises:
        ExportError: it is not installed.
    """
    try:
        return importlib.import_module(RTX_PACKAGE)
    except ImportError:
        raise ExportError(
            "TensorRT for RTX, which checks graphs without a GPU, is not installed; `pip install "
            "'astmfr[engine-check]'`."
        ) from None


def build_engine(
    trt: ModuleType,
    path: Path,
    *,
    name: str,
    options: EngineOptions,
    compute_capability: str | None = None,
    timing_cache: bytes = b"",
    on_progress: Callable[[str, float], None] | None = None,
) -> BuiltEngine:
    """Parse a graph and build its engine, in the types that stand in the graph.

    Args:
        trt: see `load_tensorrt` and `load_tensorrt_rtx`.
        path: the ONNX file.
        name: what to call it.
        options: of the build.
        compute_capability: `SM89`, say, to build ahead of time for such a GPU; None builds for this machine's.
        timing_cache: of an earlier build; one of another GPU or TensorRT is not used.
        on_progress: called with the phase and the share of it that is done, 0 to 1.

    Raises:
        VerificationError: TensorRT refuses the graph; the message names the node.
        ExportError: this TensorRT lacks what an option asks for.
    """
    started = time.perf_counter()
    errors: list[str] = []
    logger = _error_logger(trt, errors)
    builder = start(trt, trt.Builder, logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes(), str(path)):
        raise VerificationError(f"TensorRT refuses {name}: {_first_error(parser)}.")
    if network.num_outputs == 0:
        raise VerificationError(f"TensorRT finds no graph in {path}; export again.")
    config = builder.create_builder_config()
    _configure(trt, config, options)
    if compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, compute_capability), 0)
    config.add_optimization_profile(_profile(builder, network, options))
    _set_timing_cache(config, timing_cache)
    if on_progress is not None:
        config.progress_monitor = _progress_monitor(trt, on_progress)
    errors.clear()  # a timing cache of another GPU is reported as one, and does no harm
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise VerificationError(
            f"TensorRT parses {name} and builds no engine: {errors[0] if errors else 'it does not say why'}."
        )
    return BuiltEngine(
        tensorrt=trt.__version__,
        n_layers=network.num_layers,
        inputs=tuple(_spec(network.get_input(index)) for index in range(network.num_inputs)),
        outputs=tuple(_spec(network.get_output(index)) for index in range(network.num_outputs)),
        seconds=time.perf_counter() - started,
        data=bytes(engine),
        timing_cache=_timing_cache(config),
    )


def start(trt: ModuleType, kind: Callable[[Any], Any], logger: Any) -> Any:
    """TensorRT's builder or runtime.

    Raises:
        ExportError: it cannot start; the driver is too old for it, most often.
    """
    try:
        return kind(logger)
    except TypeError as error:  # the bindings' answer to a null pointer
        raise ExportError(
            f"TensorRT {trt.__version__} does not start here ({error}); it needs a GPU and a driver that is new enough "
            "for it (nvidia-smi shows both)."
        ) from None


def _strongly_typed(trt: ModuleType) -> int:
    """TensorRT 10 needs a flag; in later versions every network is strongly typed, and the flag may be gone."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _configure(trt: ModuleType, config: Any, options: EngineOptions) -> None:
    # Tensor cores round float32 to 10 bits of mantissa unless told not to, and float32 is held to 1e-4 of a map.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = options.optimization_level
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    level = options.hardware_compatibility.upper()
    if level != "NONE":
        if not hasattr(trt.HardwareCompatibilityLevel, level):
            raise ExportError(
                f"TensorRT {trt.__version__} has no hardware compatibility {options.hardware_compatibility!r}; take "
                "another or a later TensorRT."
            )
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)


def _profile(builder: Any, network: Any, options: EngineOptions) -> Any:
    profile = builder.create_optimization_profile()
    batches = (options.min_batch, options.opt_batch, options.max_batch)
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        sides = SIDES if -1 in tuple(tensor.shape)[1:] else SIDES[:1] * len(batches)
        stride = dict(zip(TEACHER_OUTPUTS, STRIDES, strict=True)).get(tensor.name, 1)
        shapes = (
            (batch, *(side // stride if length == -1 else length for length in tuple(tensor.shape)[1:]))
            for batch, side in zip(batches, sides, strict=True)
        )
        profile.set_shape(tensor.name, *shapes)
    return profile


def _set_timing_cache(config: Any, earlier: bytes) -> None:
    """Start from an earlier build's cache, or an empty one where that is of another GPU or TensorRT."""
    # TensorRT for RTX times nothing ahead of time.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        cache = config.create_timing_cache(earlier)
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)


def _timing_cache(config: Any) -> bytes:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # see _set_timing_cache
        return bytes(config.get_timing_cache().serialize())


def _progress_monitor(trt: ModuleType, on_progress: Callable[[str, float], None]) -> Any:
    """Reports steps of the outermost phase; nested phases change too fast to read."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            if self._steps.pop(phase_name, None) is not None:
                on_progress(phase_name, 1.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                on_progress(phase_name, (step + 1) / max(self._steps[phase_name], 1))
            return True  # go on

    return Monitor()


def _error_logger(trt: ModuleType, errors: list[str]) -> Any:
    """A logger that appends TensorRT's error messages to `errors`."""

    class Logger(trt.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                errors.append(message.strip().rstrip("."))

    return Logger()


def _first_error(parser: Any) -> str:
    error = parser.get_error(0)
    where = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_operator() else ""
    return f"{where}{error.desc()}".rstrip(". ")


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec(
        tensor.name, TRITON_TYPES.get(tensor.dtype.name, tensor.dtype.name), tuple(tensor.shape)[1:]
    )
