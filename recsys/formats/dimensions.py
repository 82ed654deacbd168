"""The shapes of what a program reads: numbers, and names of what each request or batch decides."""

from __future__ import annotations

from recsys.formats.source import RankerSource, Source

REQUESTS, ITEMS = "requests", "items"


def shapes_of(source: Source) -> dict[str, list[int | str]]:
    """Shapes of the tensors that a part's program reads, by name, in their order."""
    shapes: dict[str, list[int | str]] = {}
    for asked in source.record.inputs:
        free = asked.dimensions()
        lengths = source.asked[asked.name].shape
        shapes[asked.name] = [
            free[place].__name__ if place in free else length
            for place, length in enumerate(lengths)
        ]
    if isinstance(source, RankerSource):
        shapes[source.items] = [REQUESTS, ITEMS]
    return shapes
