"""Engines for tests, see the fixture `rtx_in_place_of_tensorrt`."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from export.engines.build import EngineBuild, build_category_engines
from export.engines.gpu import Gpu
from export.engines.tensorrt_builder import BuiltEngine, build_engine
from export.records import EngineOptions
from tests.conftest import CATEGORY

ADA = Gpu("NVIDIA L4", "8.9")


def build(build_dir: Path, *, force: bool = False, **options: Any) -> EngineBuild:
    """Both engines of the tiny build."""
    return build_category_engines(
        CATEGORY, "fp32", build_dir=build_dir, options=EngineOptions(**options), force=force
    )


def build_ahead_of_time(trt: ModuleType, path: Path, **options: Any) -> BuiltEngine:
    """`build_engine` for an Ada GPU that is not here."""
    return build_engine(trt, path, compute_capability="SM89", **options)
