"""How a tensor that crosses a model's border is described, in Triton's words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """Name, type and shape without the batch of a tensor; -1 is any size."""

    name: str
    type: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.type} {list(self.shape)}"
