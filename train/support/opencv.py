"""OpenCV, which only what aligns pictures needs."""

from __future__ import annotations

import importlib.util

from train.errors import RunError


def require_opencv() -> None:
    """Make sure that pictures can be aligned here.

    Raises:
        RunError: OpenCV is not installed.
    """
    if importlib.util.find_spec("cv2") is None:
        raise RunError(
            "Pictures are aligned with OpenCV, which is not installed; pip install opencv-python-headless, or train "
            "with --align off."
        )
