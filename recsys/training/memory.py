"""The memory of a step's tensors, kept for the next step."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # numbers that malloc.h gives them
_MMAPS, _LARGEST, _TOP = 65_536, 1 << 25, 1 << 26  # where glibc ends up by itself


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within, what tensors on the CPU leave is kept for those that follow; afterwards it goes back.

    glibc returns what large tensors held as soon as they are gone, and the system has to blank it
    before it gives it out again, which can take as long as the step's arithmetic. Other C libraries
    are left as they are.
    """
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _MMAPS)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_TRIM_THRESHOLD, _TOP)
        library.malloc_trim(0)
