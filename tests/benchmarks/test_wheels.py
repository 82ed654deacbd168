"""What a machine with a GPU lacks: which packages, and boxes that are put together again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.gpu.wheels import pack, pins

CONTENT = {"large-1.whl": bytes(range(250)), "small-1.whl": b"small" * 4, "tiny-1.whl": b"tiny"}


@pytest.fixture
def boxes(tmp_path: Path) -> list[Path]:
    """Of 100 bytes each."""
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    for name, content in CONTENT.items():
        (fetched / name).write_bytes(content)
    return pack(sorted(fetched.iterdir()), tmp_path / "out", 100)


def join(folder: Path) -> int:
    return subprocess.run(["sh", str(folder / "join.sh")], capture_output=True).returncode


def test_pins_are_replaced_by_name_and_what_is_there_is_left_out() -> None:
    constraints = (
        "# all\ntorch==2.13.0\nFlask==3.1\ntyping_extensions==4\nfbgemm-gpu==1.8.0  # why\n"
    )
    there = "torch  # comes with CUDA\ntyping-extensions\n"
    assert pins(constraints, "fbgemm_gpu==1.6.0\n", there) == ["Flask==3.1", "fbgemm_gpu==1.6.0"]


def test_no_box_is_too_large_and_all_are_put_together_again(
    boxes: list[Path], tmp_path: Path
) -> None:
    sizes = [sum(path.stat().st_size for path in box.iterdir()) for box in boxes]
    assert sizes == [100, 100, 74]
    assert join(tmp_path / "out") == 0
    joined = {path.name: path.read_bytes() for path in (tmp_path / "out" / "wheels").iterdir()}
    assert joined == CONTENT


@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_a_box_that_did_not_arrive_whole_is_noticed(
    boxes: list[Path], tmp_path: Path, harm: str
) -> None:
    (part,) = boxes[1].iterdir()
    part.unlink() if harm == "missing" else part.write_bytes(b"x" * 100)
    assert join(tmp_path / "out") != 0
