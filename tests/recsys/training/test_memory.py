"""What arrays leave is kept for those that follow, as long as it is asked for."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

STATM = Path("/proc/self/statm")
# in a process of its own: what a long one has left in its heap decides where arrays come to lie
PROGRAM = """
import os
import numpy as np
from recsys.training.memory import kept_memory

def resident():  # megabytes
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

def left():
    before = resident()
    np.ones(100 * 2**20 // 8)
    return resident() - before

start = resident()
without = left()
with kept_memory():
    print(without, left(), left(), resident() - start)
print(resident() - start)
"""


@pytest.mark.skipif(
    not (STATM.exists() and hasattr(ctypes.CDLL(None), "mallopt")), reason="another C library"
)
def test_memory_is_kept_within_and_goes_back_afterwards() -> None:
    program = [sys.executable, "-c", PROGRAM]
    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()
    without, first, second, within, afterwards = map(float, told)
    assert without < 20
    assert first > 80
    assert second < 20  # of what was kept already
    assert within > 80
    assert afterwards < 20
