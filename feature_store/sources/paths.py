"""Which files a path means: a file, a folder, or a pattern where somebody wrote one."""

from __future__ import annotations

import glob
from pathlib import Path

from feature_store.errors import DataError
from feature_store.sources.text_file import is_text

_ASIDE = ("_", ".")  # how names of what is not the data begin, such as _temporary


def find(pattern: str) -> list[Path]:
    """The files that a path, folder or pattern means, sorted.

    Signs of patterns in the name of a folder that is there are part of its name. Below the
    folder, and where a pattern does not name them, files and folders are left out whose names
    begin with `_` or `.`: what other programs put aside. Raises DataError when no file is left.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        below = (file for file in path.rglob("*") if file.is_file())
        files = [file for file in below if file.suffix == ".parquet" or is_text(file)]
        named: set[str] = set()
    else:
        there, wanted = _literal(path)
        matches = glob.iglob(str(Path(glob.escape(str(there)), *wanted)), recursive=True)
        files = [file for file in map(Path, matches) if file.is_file()]
        path, named = there, {part[0] for part in wanted}
    files = [file for file in files if not _is_aside(file.relative_to(path), named)]
    if not files:
        raise DataError(f"{pattern}: no Parquet or CSV file is there")
    return sorted(files)


def _literal(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The longest beginning of a pattern that is there, and the parts behind it."""
    for place in range(len(pattern.parts) - 1, 0, -1):
        there = Path(*pattern.parts[:place])
        if there.exists():
            return there, pattern.parts[place:]
    return Path(), pattern.parts


def _is_aside(file: Path, named: set[str]) -> bool:
    return any(part[0] in _ASIDE and part[0] not in named for part in file.parts)
