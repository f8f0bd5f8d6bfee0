"""The pair in ONNX Runtime's CUDA provider and in TensorRT, where they import."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from tests.benchmarks.gpu_check.pair import Pair, build_pair, latency
from tests.benchmarks.gpu_check.work import Asked, Results, rate

BATCHES = (1, 32, 64)
TYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "UINT8": torch.uint8}


def measure(asked: Asked, results: Results) -> None:
    """Each runtime that is there; of one that is not, a sentence."""
    missing = missing_runtimes(asked)
    results.put(missing=list(missing.values()))
    runtimes: dict[str, type[OnnxRuntime] | type[TensorRT]] = {
        "onnxruntime": OnnxRuntime,
        "tensorrt": TensorRT,
    }
    wanted = {name: runtime for name, runtime in runtimes.items() if name not in missing}
    if not wanted:
        return
    dtype = torch.float32 if asked.device == "cpu" else torch.float16
    pair, facts = build_pair(asked, dtype=dtype)
    for name, runtime in wanted.items():
        try:
            measure_runtime(name, runtime, pair, asked, results, size=facts["image_size"])
        except Exception as error:  # it costs the other one nothing
            missing[name] = f"{name} failed: {' '.join(str(error).split())[:300]}"
            results.put(missing=list(missing.values()))


def measure_runtime(
    name: str,
    runtime: type[OnnxRuntime] | type[TensorRT],
    pair: Pair,
    asked: Asked,
    results: Results,
    *,
    size: int,
) -> None:
    """p50 of one image and images/s of each batch; written one by one."""
    measured: dict[str, Any] = {}
    for batch in (1, 2) if asked.tiny else BATCHES:
        path = write_graph(pair, asked, batch=batch, size=size)
        started = perf_counter()
        session = runtime(path, asked)
        measured.setdefault("build_s", perf_counter() - started)
        if batch == 1:
            runs = 10 if asked.tiny else 200
            measured |= latency(session.run, session.image, session.outputs, runs=runs)
        seconds = 0.05 if asked.tiny else 1.0
        per_s = rate(session.run, device=asked.torch_device, seconds=seconds)
        measured[f"images_per_s_{batch}"] = batch * per_s
        results.put(**{name: measured})


def missing_runtimes(asked: Asked) -> dict[str, str]:
    """What cannot be measured here, a sentence each."""
    sentences = {}
    provider = "CUDAExecutionProvider" if asked.device == "cuda" else "CPUExecutionProvider"
    if importlib.util.find_spec("onnxruntime") is None:
        sentences["onnxruntime"] = "ONNX Runtime is not installed."
    else:
        import onnxruntime

        if provider not in onnxruntime.get_available_providers():
            sentences["onnxruntime"] = (
                f"ONNX Runtime {onnxruntime.__version__} here has no {provider}; a wheel of onnxruntime-gpu would."
            )
    if asked.device == "cpu":
        sentences["tensorrt"] = "TensorRT needs CUDA."
    elif importlib.util.find_spec("tensorrt") is None:
        sentences["tensorrt"] = "TensorRT is not installed."
    return sentences


def write_graph(pair: Pair, asked: Asked, *, batch: int, size: int) -> Path:
    """The pair as one ONNX graph of a fixed batch."""
    path = asked.work / f"pair-{batch}.onnx"
    image = torch.zeros(batch, size, size, 3, dtype=torch.uint8, device=asked.torch_device)
    names = [f"distance_{stage}" for stage in (1, 2, 3)]
    with warnings.catch_warnings(action="ignore"):  # the exporter's own deprecations
        torch.onnx.export(
            pair, (image,), path, dynamo=True, external_data=False, opset_version=18, input_names=["image"],
            output_names=names, verbose=False,
        )  # fmt: skip
    return path


class OnnxRuntime:
    """A session whose input and outputs lie on the device."""

    def __init__(self, path: Path, asked: Asked) -> None:
        import onnxruntime as ort

        cuda = asked.device == "cuda"
        options = {"cudnn_conv_algo_search": "HEURISTIC", "do_copy_in_default_stream": "1"}
        providers = [("CUDAExecutionProvider", options)] if cuda else ["CPUExecutionProvider"]
        session = ort.InferenceSession(path, providers=providers)
        if cuda and "CUDAExecutionProvider" not in session.get_providers():
            raise RuntimeError("it cannot load its CUDA provider here, and would compute on the CPU.")
        (entry,) = session.get_inputs()
        self.image = torch.zeros(entry.shape, dtype=torch.uint8, device=asked.device)
        binding = session.io_binding()
        binding.bind_input("image", asked.device, 0, "uint8", entry.shape, self.image.data_ptr())
        self.outputs = [
            torch.zeros(output.shape, dtype=torch.float32, device=asked.device)
            for output in session.get_outputs()
        ]
        for output, tensor in zip(session.get_outputs(), self.outputs, strict=True):
            binding.bind_output(output.name, asked.device, 0, "float32", output.shape, tensor.data_ptr())
        self.run: Callable[[], object] = lambda: session.run_with_iobinding(binding)


class TensorRT:
    """An engine of the graph, its types as they are."""

    def __init__(self, path: Path, asked: Asked) -> None:
        trt = importlib.import_module("tensorrt")
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(path.read_bytes()):
            raise RuntimeError(
                f"TensorRT {trt.__version__} does not take the graph: {parser.get_error(0).desc()}"
            )
        plan = builder.build_serialized_network(network, builder.create_builder_config())
        self.engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
        context = self.context = self.engine.create_execution_context()
        self.outputs = []
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            dtype = TYPES[self.engine.get_tensor_dtype(name).name]
            tensor = torch.zeros(tuple(self.engine.get_tensor_shape(name)), dtype=dtype, device=asked.device)
            context.set_tensor_address(name, tensor.data_ptr())
            if name == "image":
                self.image = tensor
            else:
                self.outputs.append(tensor)
        stream = torch.cuda.current_stream().cuda_stream
        self.run: Callable[[], object] = lambda: context.execute_async_v3(stream)
