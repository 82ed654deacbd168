"""Seconds on processors and GPUs, and the two rates that nothing beats: of products, of copies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def wait(device: torch.device) -> None:
    """Until the GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[..., Any], *arguments: Any, device: torch.device) -> float:
    """Seconds of a call, and of what it has given the GPU."""
    wait(device)
    started = time.perf_counter()
    work(*arguments)
    wait(device)
    return time.perf_counter() - started


def product_rate(
    device: torch.device,
    size: int = 2048,
    repetitions: int = 9,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Operations per second of a square matrix product, the median."""
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    spent = [timed(torch.mm, matrix, matrix, device=device) for _ in range(repetitions)]
    return 2 * size**3 / statistics.median(spent)


def copy_bandwidth(device: torch.device, numbers: int = 1 << 28) -> float:
    """Bytes per second, read and written, of a copy of so many float32; the fastest of five."""
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    best = min(timed(target.copy_, source, device=device) for _ in range(5))
    return 2 * source.nbytes / best
