"""Versions of the libraries that a run is made with; and OpenCV, which only what aligns pictures needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence

from train.errors import RunError


def require_opencv() -> None:
    """Make sure that pictures can be aligned here.

    Raises:
        RunError: OpenCV is not installed.
    """
    if importlib.util.find_spec("cv2") is None:
        raise RunError(
            "Pictures are aligned with OpenCV, which is not installed; install it with the extra `align`, or "
            "train with --align off."
        )


def versions_of(libraries: Sequence[str], *, aligned: bool) -> dict[str, str]:
    """The version of each, and of OpenCV where pictures were `aligned` with it."""
    versions = {name: importlib.metadata.version(name) for name in libraries}
    if aligned:
        import cv2

        versions["opencv"] = cv2.__version__
    return versions
