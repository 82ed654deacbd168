"""Credentials never leave: not in messages, not in what is recorded of a run."""

from __future__ import annotations

import os
import re

_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|ACCOUNT_KEY|CONNECTION_STRING", re.I)
_SIGNED = re.compile(
    r"((?:X-Amz-)?(?:Credential|Signature|Security-Token)|AWSAccessKeyId|SharedAccessKey|"
    r"AccountKey|sig)=[^\s&;,'\"<>]+",
    re.I,
)
_SHORTEST = 4  # characters: a shorter value hides nothing, and may be part of any word


def scrubbed(text: str) -> str:
    """The text in one line, without values of the environment that are secret, and without
    signatures."""
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, "***")
    return " ".join(_SIGNED.sub(r"\1=***", text).split())
