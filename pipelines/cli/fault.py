"""What is said where a program meets what nobody foresaw."""

from __future__ import annotations

import os
import tempfile
import traceback

_LONGEST = 300  # characters of an error's own words


def told_of_fault(error: BaseException) -> str:
    """One line on an error that no user can mend, which leaves its traceback in a file."""
    handle, path = tempfile.mkstemp(prefix="recsys-fault-", suffix=".txt")
    with os.fdopen(handle, "w") as file:
        file.writelines(traceback.format_exception(error))
    words = " ".join(str(error).split())[:_LONGEST]
    return (
        f"this is a fault of the program, {type(error).__name__}: {words}; please report it with "
        f"{path}, which says where"
    )
