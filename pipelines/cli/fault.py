"""What is said where a program meets what nobody foresaw."""

from __future__ import annotations

import errno
import os
import tempfile
import traceback

from pipelines.escaping import shown

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST = 300  # characters of an error's own words
_READ = 4000


def shortened(line: str) -> str:
    """A line, without its middle where it is far longer than anybody reads: a file without line
    ends may have a header of a gigabyte."""
    return line if len(line) <= _READ else f"{line[: _READ - 500]} ... {line[-500:]}"


def told_of_fault(error: BaseException) -> str:
    """One line on an error that nobody foresaw. Where no user can mend it, its traceback is left in
    a file."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return shown(f"{str(error.filename)[:_LONGEST]}: {error.strerror}")
    if isinstance(error, OSError) and error.errno in _FULL:
        return shown(f"{error.strerror or error}: make room on the disk, then go on")
    words = shown(" ".join(str(error).split()))[:_LONGEST]
    return (
        f"this is a fault of the program, {type(error).__name__}: {words}; please report it with "
        f"{_told_where(error)}"
    )


def _told_where(error: BaseException) -> str:
    """What says where the error came from: a file or, where none can be written, the last line."""
    try:
        handle, path = tempfile.mkstemp(prefix="recsys-fault-", suffix=".txt")
        with os.fdopen(handle, "w") as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        last = traceback.extract_tb(error.__traceback__)[-1:]
        return "where it was: " + ", ".join(f"{at.filename}:{at.lineno}" for at in last)
    return f"{path}, which says where"
