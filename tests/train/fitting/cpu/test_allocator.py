"""Freed memory stays with the process: no page faults when the same block is asked for again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from train.fitting import loop

SCRIPT = """
import resource, sys
import numpy as np
from train.fitting.cpu.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def page_faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        np.ones(50 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

page_faults(1)
print(page_faults(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone has these settings")
def test_blocks_come_back_without_page_faults() -> None:
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True
            ).stdout
        )
        for how in ("returned", "kept")
    }
    # At least one a huge page of 2 MiB where the kernel gives those, one a page of 4 KiB elsewhere.
    assert faults["returned"] >= 5 * 25
    assert faults["kept"] < 25


def test_a_process_of_tests_gives_back_what_its_trainings_have_freed() -> None:
    """Or it would be as large as the largest of them, to its end."""
    assert loop.keep_freed_memory() is False
