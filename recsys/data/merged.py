"""Rows of several logs as of one, whose items are numbered one log behind the other."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import HISTORY
from feature_store.storage import Place
from recsys.data.reader import Reader


class MergedReader(Reader):
    """A reader of sequences of several folders of examples: `shifts` says what is added to the item
    rows of each file's folder. Batches hold rows of any of them."""

    shifts: dict[Place, int]

    def _decode(self, group: int) -> pa.Table:
        table = super()._decode(group)
        shift = self.shifts[self._row_groups[group][0].parent]
        lists = table.column(HISTORY).combine_chunks()
        items = pc.add(lists.flatten(), pa.scalar(shift, lists.type.value_type))
        offsets = pc.subtract(lists.offsets, lists.offsets[0])
        place = table.column_names.index(HISTORY)
        return table.set_column(place, HISTORY, pa.ListArray.from_arrays(offsets, items))
