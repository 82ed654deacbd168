"""Collect what a machine with a GPU and nothing but torch lacks, in boxes that are easy to carry.

Wheels for Python 3.12, and two scripts: `sh join.sh` checks that all has arrived, `sh install.sh
TARGET` installs it, without a network, where `PYTHONPATH=TARGET` finds it. A wheel that is larger
than a box is split over several. The machine that collects needs no GPU.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
_GLIBC = (17, 24, 27, 28, 31, 34)  # that wheels are built for
_JOIN = """#!/bin/sh
# Puts wheels that were split together, and checks them all.
set -e
cd "$(dirname "$0")"
mkdir -p wheels
for first in box-*/*.part-00; do
    [ -e "$first" ] || continue
    name=$(basename "${first%.part-00}")
    cat box-*/"$name".part-* >"wheels/$name"
done
for wheel in box-*/*.whl; do
    [ ! -e "$wheel" ] || cp "$wheel" wheels/
done
cd wheels
sha256sum --check --quiet ../SHA256SUMS
"""
_INSTALL = """#!/bin/sh
# sh install.sh TARGET: then PYTHONPATH=TARGET finds what was installed.
set -e
here=$(cd "$(dirname "$0")" && pwd)
sh "$here/join.sh"
python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \\
    --target "$1" "$here"/wheels/*.whl
"""


def pins(constraints: str, instead: str, present: str) -> list[str]:
    """What to fetch: the constraints with some versions instead, without what is there."""
    chosen = {_name(pin): pin for text in (constraints, instead) for pin in _lines(text)}
    there = {_name(line) for line in _lines(present)}
    return [pin for name, pin in chosen.items() if name not in there]


def _lines(text: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _name(pin: str) -> str:
    return re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower()


def fetch(wanted: Iterable[str], folder: Path) -> None:
    """Download wheels for Python 3.12 on Linux. Raises CalledProcessError where one is missing."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    for version in _GLIBC:
        command += ["--platform", f"manylinux_2_{version}_x86_64"]
    command += ["--platform", "manylinux2014_x86_64", "--platform", "manylinux1_x86_64"]
    subprocess.run([*command, "--dest", str(folder), *wanted], check=True)


def pack(wheels: list[Path], folder: Path, size: int) -> list[Path]:
    """Put the wheels, which are taken away, in boxes of at most `size` bytes, with scripts."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = [f"{_sha256(wheel)}  {wheel.name}\n" for wheel in wheels]
    boxes: list[Path] = []
    room = 0
    for wheel in sorted(wheels, key=lambda path: -path.stat().st_size):
        whole = wheel.stat().st_size <= size
        parts = [wheel] if whole else _split(wheel, size)
        for part in parts:
            bytes_of = part.stat().st_size
            if bytes_of > room:
                boxes.append(folder / f"box-{len(boxes) + 1:02d}")
                boxes[-1].mkdir()
                room = size
            shutil.move(part, boxes[-1] / part.name)
            room -= bytes_of
    (folder / "SHA256SUMS").write_text("".join(sums))
    (folder / "join.sh").write_text(_JOIN)
    (folder / "install.sh").write_text(_INSTALL)
    return boxes


def _split(wheel: Path, size: int) -> list[Path]:
    parts: list[Path] = []
    with wheel.open("rb") as file:
        while piece := file.read(size):
            parts.append(wheel.with_name(f"{wheel.name}.part-{len(parts):02d}"))
            parts[-1].write_bytes(piece)
    wheel.unlink()
    return parts


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Collect and pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="is made anew")
    parser.add_argument("--box-mib", type=int, default=55, help="most that a box holds")
    parser.add_argument(
        "--present",
        type=Path,
        default=ROOT / "requirements" / "gpu-present.txt",
        help="names of what the machine has",
    )
    args = parser.parse_args()
    requirements = ROOT / "requirements"
    texts = [requirements / "constraints.txt", requirements / "gpu.txt", args.present]
    shutil.rmtree(args.folder, ignore_errors=True)
    fetched = args.folder / "fetched"
    fetched.mkdir(parents=True)
    fetch(pins(*(path.read_text() for path in texts)), fetched)
    wheels = list(fetched.iterdir())
    total = sum(path.stat().st_size for path in wheels)
    boxes = pack(wheels, args.folder, args.box_mib * MIB)
    fetched.rmdir()
    print(f"{len(wheels)} wheels, {total / MIB:.0f} MiB, in {len(boxes)} boxes: {args.folder}")


if __name__ == "__main__":
    main()
