"""What people say of items -> the rows of those that a bundle does not find yet."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.conform import conform
from feature_store.errors import DataError
from recsys.serving.generator import Generator


def new_items(items: pa.Table, generator: Generator, read: tuple[str, ...]) -> pa.Table:
    """Items that the generator cannot find, in their order, as its catalogue has them: the columns
    of the log's item features, null where a table lacks one.

    Raises DataError naming the row and column of a value that does not fit, an id that occurs
    twice, and a column that the log does not know, or that is `read` and the table lacks.
    """
    schema = generator.bundle.schema
    wanted, key = schema.side_schema("item"), schema.item
    unknown = [name for name in items.column_names if name not in wanted.names]
    absent = [name for name in (key, *read) if name not in items.column_names]
    if unknown or absent:
        wrong = f"have no {absent[0]!r}" if absent else f"have {unknown[0]!r}"
        raise DataError(
            f"items {wrong}; columns that this bundle knows: {', '.join(wanted.names)}, of which "
            f"it reads {', '.join(read)}"
        )
    checked = conform(items, wanted)
    if checked.problems:
        first = checked.problems[0]
        raise DataError(
            f"items, row {first.row}, column {first.column!r}: {first.value!r} {first.reason}"
        )
    counts = checked.table.column(key).value_counts()
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise DataError(f"items: {key} {repeated[0].as_py()!r} occurs more than once")
    ids = checked.table.column(key)
    return checked.table.filter(pc.invert(pc.is_in(ids, value_set=generator.item_ids)))
