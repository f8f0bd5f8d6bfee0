"""Freed memory stays with the process while it trains.

glibc gives large blocks back to the kernel as soon as they are freed, and every training step asks for the same ones
again: thousands of page faults a step, each of which fills a page with zeros (docs/measurements/training.md).
"""

from __future__ import annotations

import ctypes
import platform

# malloc.h: parameters of mallopt, and sizes in bytes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER_TRIM = (1 << 31) - 1
LARGEST_KEPT_BLOCKS = (1 << 30, 1 << 25)  # glibc before 2.35 takes no more than 32 MiB


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks, of up to 1 GiB, for the rest of the process; False where it does not."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    large_blocks_stay = any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST_KEPT_BLOCKS)
    never_trimmed = bool(mallopt(M_TRIM_THRESHOLD, NEVER_TRIM))
    return large_blocks_stay and never_trimmed
