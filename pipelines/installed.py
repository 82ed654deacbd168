"""What to type for the programs that are installed beside this one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def program(name: str = "recsys") -> str:
    """The program's name, or its path where the shell would not find it."""
    if shutil.which(name):
        return name
    return f"{Path(sys.executable).parent}/{name}".removeprefix(f"{Path.cwd()}/")
