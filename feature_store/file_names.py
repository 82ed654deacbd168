"""Names of people's data as names of files, which stay in the folder that they were meant for."""

from __future__ import annotations

import re
from urllib.parse import unquote

_ELSEWHERE = re.compile(r"[/\\%\x00-\x1f\x7f]|^\.")


def file_name(name: str) -> str:
    """The name, with all signs %-encoded that would lead elsewhere or hide the file; others, in
    any script, as they are."""
    return _ELSEWHERE.sub(lambda sign: f"%{ord(sign[0]):02X}", name)


def original_name(file: str) -> str:
    """The name that `file_name` was given."""
    return unquote(file)
