"""What differs between two bundles: contents, figures, and what they answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from feature_store.columns import EXPECTED_ITEMS
from feature_store.errors import RecsysError
from feature_store.vocabulary import Vocabulary
from recsys.serving.bundle import CATALOGUE, PARTS, USERS, Bundle
from recsys.serving.delta.runs import NEW
from recsys.serving.delta.tables import read_table, sources
from recsys.serving.files import opening
from recsys.serving.finder import ITEM_IDS
from recsys.serving.generator import ITEMS, PROGRAM
from recsys.serving.golden import GOLDEN
from recsys.serving.manifest import GeneratorRecord, PartRecord, RankerRecord
from recsys.serving.recommender import Recommender
from recsys.serving.scorer import COSTS, PRICES
from recsys.serving.scorer import PROGRAM as RANKER

WHOLE = ""  # of the bundle, and no part of it
_SHOWN = 10  # items of a list
_ABOUT = ("model", "run", "training")
_TOLD = ("protocol", "space", "width", "merge", "items", "tasks", "calibrated", "candidates")


class Difference(NamedTuple):
    """Something that differs, or is told in any case: of a part or of the whole, in the old bundle
    and in the new, and how."""

    part: str
    what: str
    old: Any
    new: Any
    how: str = ""


def differences(old: Bundle, new: Bundle) -> list[Difference]:
    """All that differs, and of each part that answers with lists how many of the items that the old
    bundle lists for its golden requests the new one lists, too.

    Raises DataError for files that cannot be read.
    """
    with opening(new.folder):
        rows = list(_of_bundles(old, new))
        parts = (old.manifest.parts, new.manifest.parts)
        for name in dict.fromkeys((*parts[0], *parts[1])):
            before, after = (records.get(name) for records in parts)
            kinds = [None if record is None else record.noun for record in (before, after)]
            if before is None or after is None or kinds[0] != kinds[1]:
                rows.append(Difference(name, "part", kinds[0], kinds[1]))
            else:
                rows += _of_parts(name, old, new, before, after)
    return rows


def _of_bundles(old: Bundle, new: Bundle) -> Iterator[Difference]:
    a, b = old.manifest, new.manifest
    yield from _unequal(WHOLE, [{"created": tree.created} for tree in (a, b)])
    yield from _unequal(WHOLE, [a.versions, b.versions], "version of ")
    yield from _unequal(WHOLE, [{"schema": bundle.schema.fingerprint} for bundle in (old, new)])
    for feature in sorted(a.vocabularies.keys() | b.vocabularies.keys()):
        names = a.vocabularies.get(feature), b.vocabularies.get(feature)
        yield from _of_tables(old, new, WHOLE, f"ids of {feature}", *names, "id")
    yield from _of_tables(old, new, WHOLE, "users", USERS, USERS, new.schema.user)
    yield from _of_tables(old, new, WHOLE, "catalogue", CATALOGUE, CATALOGUE, new.schema.item)


def _of_tables(
    old: Bundle, new: Bundle, part: str, what: str, a: str | None, b: str | None, key: str
) -> Iterator[Difference]:
    """How many rows are new, gone or altered, by their ids."""
    there = [name in bundle.manifest.files for bundle, name in ((old, a), (new, b))]
    if not any(there) or (all(there) and _digest(old, a) == _digest(new, b)):
        return
    if not all(there):
        told = [f"a table of {what}" if is_there else None for is_there in there]
        yield Difference(part, what, told[0], told[1])
        return
    before, after = (read_table(bundle.file(str(name)))[0] for bundle, name in ((old, a), (new, b)))
    columns = [name for name in before.column_names if name in after.column_names]
    gone = [name for name in before.column_names if name not in columns]
    come = [name for name in after.column_names if name not in columns]
    how = [f"column {name} is gone" for name in gone] + [f"column {name} is new" for name in come]
    before, after = before.select(columns), after.select(columns)
    if key in columns and before.schema == after.schema:
        known = Vocabulary(before.column(key).combine_chunks())
        shared = int((known.encode(after.column(key)) > 0).sum())
        altered = shared - int((sources(before, after, key) != NEW).sum())
        how.insert(0, _counted(after.num_rows - shared, before.num_rows - shared, altered))
    else:
        how.insert(0, "of other types")
    yield Difference(part, what, before.num_rows, after.num_rows, ", ".join(how))


def _of_parts(
    name: str, old: Bundle, new: Bundle, before: PartRecord, after: PartRecord
) -> Iterator[Difference]:
    trees = [record.model_dump(mode="json") for record in (before, after)]
    for keys, pick in ((_ABOUT, lambda t: t["about"]), (_TOLD, lambda t: t)):
        chosen = [{key: pick(tree)[key] for key in keys if key in pick(tree)} for tree in trees]
        yield from _unequal(name, chosen)
    yield from _unequal(name, [{"index": tree.get("index")} for tree in trees])
    inputs = [[asked["name"] for asked in tree["inputs"] if "name" in asked] for tree in trees]
    yield from _unequal(name, [{"inputs": names} for names in inputs])
    for file in (PROGRAM, RANKER, PRICES, COSTS):
        digests = [_digest(bundle, f"{PARTS}/{name}/{file}") for bundle in (old, new)]
        yield from _unequal(name, [{file: None if d is None else d[:12]} for d in digests])
    if isinstance(after, GeneratorRecord):
        yield from _of_items(name, old, new)
    yield from _unequal(name, [before.about.metrics, after.about.metrics])
    if not isinstance(after, RankerRecord):
        yield _overlap(name, old, new)


def _of_items(name: str, old: Bundle, new: Bundle) -> Iterator[Difference]:
    """Items that are new, gone, or have another vector."""
    ids = [Vocabulary.load(bundle.part_file(name, ITEM_IDS)) for bundle in (old, new)]
    vectors = [np.load(bundle.part_file(name, ITEMS)) for bundle in (old, new)]
    places = ids[0].encode(ids[1].values) - 1
    there = np.flatnonzero(places >= 0)
    altered = len(there)
    if vectors[0].dtype == vectors[1].dtype and vectors[0].shape[1:] == vectors[1].shape[1:]:
        pairs = (vectors[0][places[there]], vectors[1][there])
        same = np.equal(*(pair.reshape(len(there), -1) for pair in pairs)).all(1)
        altered -= int(same.sum())
    counts = [len(known.values) for known in ids]
    if altered or counts != [len(there)] * 2:
        how = _counted(counts[1] - len(there), counts[0] - len(there), altered, "other vectors")
        yield Difference(name, "items", counts[0], counts[1], how)


def _overlap(name: str, old: Bundle, new: Bundle) -> Difference:
    """What the new bundle answers to the old one's golden requests, held against their answers."""
    what = f"golden lists shared@{_SHOWN}"
    golden = read_table(old.part_file(name, GOLDEN))[0]
    asked = golden.select([c for c in golden.column_names if not c.startswith("expected")])
    lists = [items[:_SHOWN] for items in golden.column(EXPECTED_ITEMS).to_pylist()]
    try:
        recommender = Recommender(new, name)
        places = recommender.answer(asked, k=_SHOWN).places
    except RecsysError as error:
        return Difference(name, what, 1.0, None, f"not answered: {error}")
    shares = []
    for expected, row in zip(lists, places, strict=True):
        answered = recommender.finder.item_ids.take(pa.array(row[row >= 0].numpy())).to_pylist()
        both = set(map(str, expected)) & set(map(str, answered))
        shares.append(len(both) / max(1, len(expected)))
    mean = sum(shares) / len(shares)
    return Difference(name, what, 1.0, mean, f"of the items of {len(lists)} requests")


def _unequal(
    part: str, pair: Sequence[Mapping[str, Any]], prefix: str = ""
) -> Iterator[Difference]:
    """What two records say otherwise; of numbers how much."""
    old, new = pair
    for key in dict.fromkeys((*old, *new)):
        a, b = old.get(key), new.get(key)
        if a != b:
            numbers = all(isinstance(value, int | float) for value in (a, b))
            how = f"{b - a:+.4g}" if numbers and not isinstance(a, bool) else ""  # type: ignore[operator]
            yield Difference(part, f"{prefix}{key}", a, b, how)


def _counted(added: int, removed: int, altered: int, noun: str = "altered") -> str:
    return f"{added} new, {removed} gone, {altered} {noun}"


def _digest(bundle: Bundle, name: str | None) -> str | None:
    return None if name is None else bundle.manifest.files.get(name)
