"""An empty distribution `fbgemm-gpu` for machines without CUDA.

torchrec requires `fbgemm-gpu`, whose wheel holds CUDA code and overwrites the CPU build. This
alias satisfies the requirement with `fbgemm-gpu-cpu`, so `pip check` stays clean and no later
install fetches the wheel.
"""

from pathlib import Path

from setuptools import setup

pins = Path(__file__).resolve().parents[1] / "constraints.txt"
pin = next(x for x in pins.read_text().splitlines() if x.startswith("fbgemm-gpu-cpu=="))
version = pin.partition("==")[2]
setup(
    name="fbgemm-gpu",
    version=f"{version}+cpu",
    install_requires=[f"fbgemm-gpu-cpu=={version}"],
    py_modules=[],
)
