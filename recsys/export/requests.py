"""Encoded requests -> raw ones, as someone outside would make them."""

from __future__ import annotations

import pyarrow as pa

from recsys.data.examples import Examples
from recsys.inputs import Input


def features_of(inputs: tuple[Input, ...], *others: str) -> tuple[str, ...]:
    """The features whose raw ids are read: `others`, and those of inputs."""
    read = [asked.feature for asked in inputs if asked.feature is not None]
    return tuple(dict.fromkeys([*others, *read]))


def raw_requests(examples: Examples, rows: pa.Table, inputs: tuple[Input, ...]) -> pa.Table:
    """Encoded requests with raw ids and values."""
    vocabularies = {name: examples.vocabulary(name) for name in features_of(inputs)}
    return pa.table({asked.name: asked.to_raw(rows, vocabularies) for asked in inputs})
