"""Requests as tables."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from feature_store.errors import DataError


def table_of(requests: pd.DataFrame | pa.Table | None) -> pa.Table:
    """Requests as a table. Raises DataError for values that are no columns."""
    if isinstance(requests, pa.Table):
        return requests
    try:
        return pa.Table.from_pandas(requests, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"requests cannot be read: {error}") from None
