"""How many cores this process may use; it may be fewer than the machine has."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may use: its affinity where the system tells it, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
