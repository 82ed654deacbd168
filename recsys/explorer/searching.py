"""Items by words of their titles, and users by the beginning of their ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.explorer.cards import Card, Cards
from recsys.serving.users import KnownUsers


def items_by_words(cards: Cards, text: str, most: int) -> list[Card]:
    """Cards of the items whose titles hold all words of `text`, in any case; an item of that id
    comes first, then titles that begin with it, then short ones. Without `text`, some of them."""
    text = text.strip()
    exact = cards.rows(pa.array([text]))
    chosen = [row for row in exact.tolist() if row >= 0]
    if text and cards.titles is not None:
        titles = cards.titles
        fits = pa.array(np.ones(len(titles), dtype=bool))
        for word in text.split():
            fits = pc.and_(fits, pc.match_substring(titles, word, ignore_case=True))
        rows = np.flatnonzero(fits.to_numpy(zero_copy_only=False))
        of_rows = titles.take(pa.array(rows))
        beginning = pc.utf8_slice_codeunits(of_rows, 0, len(text))
        begins = pc.match_substring(beginning, text, ignore_case=True)
        lengths = pc.utf8_length(of_rows).to_numpy()
        order = np.lexsort((lengths, ~begins.to_numpy(zero_copy_only=False)))
        chosen += [row for row in rows[order[: most + 1]].tolist() if row not in chosen]
    elif not text:  # some to begin with
        chosen = np.unique(np.linspace(0, len(cards.ids) - 1, most).astype(int)).tolist()
    return cards.of(np.array(chosen[:most], dtype=np.int64))


def users_by_beginning(users: KnownUsers, text: str, most: int) -> list[str]:
    """Ids of known users that begin with `text`, that very one first; without it, some of them."""
    ids, text = users.users(), text.strip()
    if not text:
        places = np.unique(np.linspace(0, len(ids) - 1, most).astype(int))
        return [str(user) for user in ids.take(pa.array(places)).to_pylist()] if len(ids) else []
    names = ids.cast(pa.string())
    fits = np.flatnonzero(pc.starts_with(names, text).to_numpy(zero_copy_only=False))
    chosen = names.take(pa.array(fits[:10_000])).to_pylist()
    return sorted(chosen, key=lambda name: (len(name), name))[:most]
