"""Which files a path means: a file, a folder, or a pattern where somebody wrote one."""

from __future__ import annotations

import glob
from fnmatch import fnmatchcase
from pathlib import Path

from feature_store.errors import DataError
from feature_store.sources.text_file import is_text
from feature_store.storage import Place, Remote, place

_ASIDE = ("_", ".")  # how names of what is not the data begin, such as _temporary


def find(pattern: str) -> list[Place]:
    """The files that a path, folder or pattern means, on the disk or as a URL, sorted.

    Signs of patterns in the name of a folder that is there are part of its name. Below the
    folder, and where a pattern does not name them, files and folders are left out whose names
    begin with `_` or `.`: what other programs put aside. Raises DataError when no file is left.
    """
    there = place(pattern)
    files = _remote(there) if isinstance(there, Remote) else _local(there.expanduser())
    if not files:
        raise DataError(f"{pattern}: no Parquet or CSV file is there")
    return files


def _remote(at: Remote) -> list[Place]:
    """An object, what lies below a prefix, or what fits a pattern, `*` in it within a part."""
    beginning, sign, _ = at.key.partition("*")
    if not sign and at.is_file():
        return [at]
    folder = Remote(at.protocol, beginning.rpartition("/")[0] if sign else at.key)
    wanted = at.below(folder) if sign else ()
    return [
        file
        for file in folder.rglob("*")
        if (file.suffix == ".parquet" or is_text(file) or sign)
        and (not sign or _fits(file.below(folder), wanted))
        and not _is_aside(file.below(folder), {part[0] for part in wanted})
    ]


def _fits(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    if not wanted or not parts:
        return parts == wanted
    if wanted[0] == "**":
        return _fits(parts, wanted[1:]) or _fits(parts[1:], wanted)
    return fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


def _local(path: Path) -> list[Place]:
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
    return sorted(file for file in files if not _is_aside(file.relative_to(path).parts, named))


def _literal(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The longest beginning of a pattern that is there, and the parts behind it."""
    for count in range(len(pattern.parts) - 1, 0, -1):
        there = Path(*pattern.parts[:count])
        if there.exists():
            return there, pattern.parts[count:]
    return Path(), pattern.parts


def _is_aside(parts: tuple[str, ...], named: set[str]) -> bool:
    return any(part[0] in _ASIDE and part[0] not in named for part in parts)
