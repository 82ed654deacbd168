"""Calls of object storage: tried again where that may help, and explained where it does not."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from feature_store.errors import DataError
from feature_store.storage.secrets import scrubbed

ATTEMPTS = 5
_PAUSE = 0.2  # seconds before the second attempt; before each further one twice as long
_LASTING = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(ImportError, TypeError, ValueError, NotImplementedError),
)
# of botocore, which nobody needs who does not read from S3
_NO_CREDENTIALS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
    *("ProfileNotFound", "TokenRetrievalError", "UnauthorizedSSOTokenError"),
}

T = TypeVar("T")


def tried(url: str, call: Callable[[], T]) -> T:
    """What a call answers; after a failure that may pass it is made again, ATTEMPTS times in all.

    Raises:
        FileNotFoundError: there is no such object.
        DataError: the storage refuses, or cannot be reached. No message holds credentials.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except FileNotFoundError:
            raise FileNotFoundError(f"{url}: there is no such object") from None
        except Exception as error:
            lasting = isinstance(error, _LASTING) or type(error).__name__ in _NO_CREDENTIALS
            if lasting or attempt + 1 == ATTEMPTS:
                raise _refused(url, error, 1 if lasting else ATTEMPTS) from None
        time.sleep(_PAUSE * 2**attempt * random.uniform(0.5, 1.5))
    raise AssertionError


def _refused(url: str, error: Exception, attempts: int) -> DataError:
    why = scrubbed(str(error)) or type(error).__name__
    if isinstance(error, ImportError):
        return DataError(f"{url} cannot be read: {why}; `pip install 'recsys[s3]'` brings S3")
    after = f" after {attempts} attempts" if attempts > 1 else ""
    return DataError(
        f"{url} cannot be reached{after} ({why}): credentials are taken from the environment or "
        "the machine's role, and another server than AWS from AWS_ENDPOINT_URL"
    )
