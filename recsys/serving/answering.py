"""What answers from a part of a bundle, and how it is opened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from recsys.serving.bundle import Bundle
from recsys.serving.files import opening
from recsys.serving.users import KnownUsers


class Answering(ABC):
    """Answers from one part of a bundle; by default the only one of its kind. What is known of
    users comes from a store, by default from the bundle's own file."""

    @abstractmethod
    def __init__(
        self, bundle: Bundle, part: str | None = None, users: KnownUsers | None = None
    ) -> None:
        self.bundle = bundle
        self._users = None if users is None else bundle.users_of(users)

    @property
    def known(self) -> KnownUsers:
        """What is known of users."""
        return self.bundle.users if self._users is None else self._users

    @abstractmethod
    def verify(self) -> None:
        """Replay the golden requests. Raises DataError where an answer differs."""

    def check_index(self) -> None:  # noqa: B027 (many have none)
        """Measure again what an index promises. Raises DataError where it is not kept."""

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        part: str | None = None,
        users: KnownUsers | None = None,
        verify: bool = True,
        measure_index: bool = True,
        signed_by: Path | None = None,
    ) -> Self:
        """Open a bundle; replays its golden requests unless `verify` is off. `signed_by` is a
        public key that it must be signed by. What an index promises is measured again on another
        kind of machine than it was made on, unless `measure_index` is off.

        Raises DataError when files were altered, an answer differs, an index does not keep its
        promise, there is no such part, or the store of users lacks what the bundle's own file has.
        """
        with opening(Path(folder)):
            opened = cls(Bundle.open(folder, signed_by=signed_by), part, users)
            if verify:
                opened.verify()
            if measure_index:
                opened.check_index()
        return opened
