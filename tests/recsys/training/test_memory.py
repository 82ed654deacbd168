"""What tensors leave is kept for those that follow, as long as it is asked for."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
import torch

from recsys.training.memory import kept_memory

MB = 1 << 20
STATM = Path("/proc/self/statm")


def resident() -> float:
    """Megabytes that the process holds."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MB


@pytest.mark.skipif(
    not (STATM.exists() and hasattr(ctypes.CDLL(None), "mallopt")), reason="another C library"
)
def test_memory_is_kept_within_and_goes_back_afterwards() -> None:
    def left() -> float:
        before = resident()
        torch.ones(100 * MB // 4)
        return resident() - before

    ctypes.CDLL(None).malloc_trim(0)  # what earlier tests have left
    start = resident()
    with kept_memory():
        assert left() > 80
        assert left() < 20  # of what was kept already
        assert resident() > start + 80
    assert resident() < start + 20
