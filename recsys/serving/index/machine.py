"""On what kind of machine figures were measured: its processor, and the library that searches."""

from __future__ import annotations

import platform
from pathlib import Path


def machine() -> str:
    """The processor, how many of it, and FAISS with what it was compiled for."""
    import faiss

    return f"{processor()}; FAISS {faiss.__version__} {faiss.get_compile_options().strip()}"


def processor() -> str:
    """The processor's name and how wide its vectors are."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2] for line in text.splitlines() if "model name" in line]
    name = names[0].strip() if names else platform.machine()
    return f"{name}, {'AVX-512' if 'avx512f' in text else 'AVX2' if 'avx2' in text else 'SSE'}"
