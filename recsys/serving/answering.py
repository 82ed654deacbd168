"""What answers from a part of a bundle, and how it is opened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from recsys.serving.bundle import Bundle
from recsys.serving.files import opening


class Answering(ABC):
    """Answers from one part of a bundle; by default the only one of its kind."""

    @abstractmethod
    def __init__(self, bundle: Bundle, part: str | None = None) -> None: ...

    @abstractmethod
    def verify(self) -> None:
        """Replay the golden requests. Raises DataError where an answer differs."""

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        part: str | None = None,
        verify: bool = True,
        signed_by: Path | None = None,
    ) -> Self:
        """Open a bundle; replays its golden requests unless `verify` is off. `signed_by` is a
        public key that it must be signed by.

        Raises DataError when files were altered, an answer differs, or there is no such part.
        """
        with opening(Path(folder)):
            opened = cls(Bundle.open(folder, signed_by=signed_by), part)
            if verify:
                opened.verify()
        return opened
