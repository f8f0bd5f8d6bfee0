"""Where a product's checkpoint, builds and images lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProductPaths:
    """The folders that the commands are given for a product.

    Attributes:
        category: the product's name.
        runs_dir: holds <category>/checkpoint.safetensors.
        build_dir: holds <category>/, and in it <precision>/ of other precisions than float32.
        images_dir: its images; None: those it was trained on.
        weights_dir: where SAM's weights may lie, for a checkpoint that was calibrated with it.
    """

    category: str
    runs_dir: Path
    build_dir: Path
    images_dir: Path | None = None
    weights_dir: Path | None = None

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's file."""
        return self.runs_dir / self.category / "checkpoint.safetensors"

    @property
    def build(self) -> Path:
        """The folder of the float32 build."""
        return self.build_dir / self.category
