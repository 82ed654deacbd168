"""Ceiling: how much of the test could be found at all, whatever the model.

Beside a recall of .2 it says whether .3 or 1 was there to be had. A target, an item of a user's
test events, cannot be found

- without_history: where users without a history are left out, and this is one of theirs;
- seen: where what the user has had is never recommended, and the item is such;
- no_candidate: where the item is none, such as one that nobody had before.

Each target that is lost has the first reason that holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import HISTORY, TARGET, TARGET_VALUE

CEILING = "ceiling"
"""What `metrics.json` calls it."""
REASONS = ("without_history", "seen", "no_candidate")
_LOST = {
    "no_candidate": "are of items without an earlier event",
    "seen": "were had before, and are left out",
    "without_history": "are of users without a history, who are left out",
}
_MILLION = 1e6
_BUY_AGAIN = 0.05  # share of targets had before from which on people come back to items


def ceiling(
    requests: Iterable[pa.RecordBatch],
    candidates: np.ndarray,
    *,
    exclude_seen: bool,
    leave_out_cold: bool,
) -> dict[str, Any]:
    """Counts over all test requests, as `metrics.json` holds them.

    Args:
        requests: HISTORY and TARGET as lists of item rows, and TARGET_VALUE in logs with prices.
        candidates: the item rows that are ranked [n].
        exclude_seen, leave_out_cold: what the protocol does with seen items, and with users
            without a history.

    Returns:
        `users` with test events, and how many are `judged`; `targets`, how many are `findable` and
        lost by each reason; how many are `repeated`, had by the user before; and of the `money` of
        all targets the same, where there is any.
    """
    users = judged = repeated = 0
    counts, money, priced = np.zeros(4), np.zeros(4), False  # of findable ones, then by reason
    is_candidate = np.zeros(int(candidates.max(initial=0)) + 1, dtype=bool)
    is_candidate[candidates] = True
    for batch in requests:
        history, targets = batch.column(HISTORY), batch.column(TARGET)
        items = _values(targets)
        of_user = pc.list_parent_indices(targets).to_numpy()
        seen = _seen(history, items, of_user)
        known = items < len(is_candidate)
        known[known] = is_candidate[items[known]]
        cold = (pc.list_value_length(history).to_numpy() == 0)[of_user]
        reason = np.select(
            [cold & leave_out_cold, seen & exclude_seen, ~known], [1, 2, 3], default=0
        )
        users += len(history)
        judged += len(np.unique(of_user[(reason == 0) | (reason == 3)]))
        repeated += int(seen.sum())
        counts += np.bincount(reason, minlength=4)
        if TARGET_VALUE in batch.schema.names:
            priced = True
            worth = _values(batch.column(TARGET_VALUE)) / _MILLION
            money += np.bincount(reason, weights=worth, minlength=4)
    counted: dict[str, Any] = {
        "users": users,
        "judged": judged,
        "repeated": repeated,
        "targets": _parts(counts.astype(int)),
    }
    if priced and money.sum() > 0:
        counted["money"] = _parts(money)
    return counted


def _parts(of: np.ndarray) -> dict[str, Any]:
    names = ("findable", *REASONS)
    return {"all": of.sum().item(), **dict(zip(names, of.tolist(), strict=True))}


def _values(lists: pa.ListArray) -> np.ndarray:
    values: np.ndarray = pc.list_flatten(lists).to_numpy()
    return values


def _seen(history: pa.ListArray, items: np.ndarray, of_user: np.ndarray) -> np.ndarray:
    """Which targets their users have in their histories."""
    had = _values(history)
    width = int(max(items.max(initial=0), had.max(initial=0))) + 1
    pairs = pc.list_parent_indices(history).to_numpy() * width + had
    return np.isin(of_user * width + items, pairs)


def sentences(results: dict[str, Any]) -> list[str]:
    """What people read of the ceiling in `metrics.json`: who was judged, what could be found, and
    whether people come back to items. Nothing where there is none."""
    if CEILING not in results:
        return []
    counted, users = results[CEILING], results["data"]["users"]
    seen, parts, lines = results["protocol_parts"]["split.seen"], results[CEILING]["targets"], []
    lines.append(
        f"{counted['judged']:,} users were judged, of {counted['users']:,} with test events and "
        f"{users:,} in the log."
    )
    money = f", {_share(counted['money'], 'findable')} of their money" if "money" in counted else ""
    lost = "; ".join(
        f"{_share(parts, reason)} {text}" for reason, text in _LOST.items() if parts[reason]
    )
    lines.append(
        f"{_share(parts, 'findable')} of {parts['all']:,} targets could be found at all{money}"
        + (f"; {lost}." if lost else ".")
    )
    if counted["repeated"] >= _BUY_AGAIN * parts["all"]:
        again = f"{counted['repeated'] / parts['all']:.1%} of the targets were had before"
        lines.append(
            f"People come back to items here: {again}. "
            + (
                "split.seen = 'exclude' leaves them out, and asks what new items people take; "
                "'include' asks what they take next, with personal_popularity as the baseline to "
                "beat."
                if seen == "exclude"
                else "personal_popularity is the baseline to beat."
            )
        )
    return lines


def _share(parts: dict[str, Any], name: str) -> str:
    return f"{parts[name] / parts['all']:.1%}" if parts["all"] else "none"
