"""What a Python step sees of the server, so that one can be run without a server."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

STEPS = Path(__file__).resolve().parents[2] / "model_repository"


@dataclass(frozen=True)
class Tensor:
    tensor_name: str
    value: Any

    def name(self) -> str:
        return self.tensor_name

    def as_numpy(self) -> Any:
        return self.value


@dataclass
class Request:
    given: dict[str, Any]
    outputs: Sequence[str] = ()
    parameters_json: str = ""

    def inputs(self) -> list[Tensor]:
        return [Tensor(name, value) for name, value in self.given.items()]

    def parameters(self) -> str:
        return self.parameters_json

    def requested_output_names(self) -> Sequence[str]:
        return self.outputs


class TritonError(Exception):
    INVALID_ARG = 3

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Response:
    tensors: list[Tensor] = field(default_factory=list)
    error: TritonError | None = None


PB_UTILS = ModuleType("triton_python_backend_utils")
vars(PB_UTILS).update(
    Tensor=Tensor,
    InferenceRequest=Request,
    InferenceResponse=Response,
    TritonError=TritonError,
    get_input_tensor_by_name=lambda request, name: Tensor(name, request.given[name]),
)


def load_step(model: str) -> Any:
    """A committed step's model, not initialized; `PB_UTILS` and the files beside it must be among the modules."""
    path = STEPS / model / "1" / "model.py"
    spec = importlib.util.spec_from_file_location(f"backend_of_{model}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TritonPythonModel()
