"""An optional bearer token, compared in constant time and kept as a digest alone."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from feature_store.errors import ConfigError
from recsys.server.errors import Refused

TOKEN = "RECSYS_TOKEN"
_FEWEST = 16  # characters


class Token:
    """Lets in whoever bears it."""

    def __init__(self, token: str) -> None:
        if len(token) < _FEWEST or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError(
                f"a token has at least {_FEWEST} printable ASCII characters, and no blank: "
                "`openssl rand -hex 32` makes one"
            )
        self._digest = sha256(token.encode()).digest()

    @classmethod
    def read(cls, file: Path | None, environment: Mapping[str, str] = os.environ) -> Token | None:
        """That of a file, or else of the variable RECSYS_TOKEN; None where there is none.

        Raises ConfigError for a file that cannot be read, and for what is no token.
        """
        if file is not None:
            try:
                return cls(file.read_text(encoding="utf-8").strip())
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "is no text"
                raise ConfigError(f"--token-file {file} cannot be read: {reason}") from None
        return cls(environment[TOKEN]) if TOKEN in environment else None

    def check(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Raises Refused (401) for a request without it."""
        borne = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, token = borne.partition(b" ")
        same = hmac.compare_digest(sha256(token.strip()).digest(), self._digest)
        if not same or scheme.lower() != b"bearer":
            raise Refused(401, "this server asks for a token: send it as `Authorization: Bearer`")
