"""Names of columns: our own, defined once, and which are left to people's.

The engine of tables knows no upper and lower case, so neither do the rules below. What is made on
the way, and lies in no file, begins with an underscore, and no feature does.
"""

from __future__ import annotations

from collections.abc import Collection

POSITION = "position"  # the order of the log: breaks ties in time, always the same way

HISTORY, HISTORY_TIME, TARGET, TIME, LABEL = "history", "history_time", "target", "time", "label"
LIST = "list"  # code of the list that an event was shown in, 0 where there is none
LIST_PLACE = "list_place"  # its place there, from 1
LAST_PLACE = "last_place"  # the place there of what its user touched last, 0 for nothing
LAST_TOUCHED = "last_touched"  # so many events ago its user touched the item, 0 for never
TARGET_VALUE = "target_value"  # net money of a target in millionths, beside `target`
TARGET_PROFIT = "target_profit"  # of it what is left above the cost, in millionths
TRAIN_EVENTS = "train_events"  # of an item: 0 means that it cannot have been learned
KNOWN_EVENTS = "known_events"  # of an item: events before the test, validation included
LAST_PRICE = "last_price"  # of an item, the newest one known before the test
LAST_COST = "last_cost"  # likewise


def moment_of(last: str) -> str:
    """The column beside LAST_PRICE or LAST_COST of when that was, in microseconds since 1970."""
    return f"{last}_at"


EXPECTED_ITEMS, EXPECTED_SCORES = "expected_items", "expected_scores"  # of golden requests

# of events while examples are made of them; in no file
ROLE = "_role"  # of an event under a protocol
USER_ROW, ITEM_ROW, SECONDS = "_user_row", "_item_row", "_seconds"
PRICE, VALUE = "_price", "_value"  # of one piece, and of the whole event, in the log's currency
COST, PROFIT = "_cost", "_profit"  # likewise
DRAW = "_draw"  # of an event's rows: 0 is its own, then come its drawn negatives


_OF_TASK = f"{LABEL}#"  # no feature's name holds this sign, and no path of Parquet is cut at it


_RAW = "raw#"


def label_of(task: str) -> str:
    """The column of a task's label, such as `label#purchase`; that of the first task is `label`."""
    return LABEL if task == LABEL else f"{_OF_TASK}{task}"


def is_label(column: str) -> bool:
    """Whether it holds the label of a task."""
    return column == LABEL or column.startswith(_OF_TASK)


def compared_of(number: str, way: str) -> str:
    """The column of how a number is beside those of its list, such as `price#rank`."""
    return f"{number}#{way}"


def is_compared(column: str) -> bool:
    """Whether it holds such a thing."""
    return "#" in column and not (is_label(column) or is_raw(column))


def is_raw(column: str) -> bool:
    """Whether it holds raw ids beside codes."""
    return column.startswith(_RAW)


def raw_of(feature: str) -> str:
    """The column of raw ids beside the codes of a feature without a vocabulary."""
    return f"{_RAW}{feature}"


def time_of(history: str) -> str:
    """The column beside a history of when its events were, such as `history_time`."""
    return f"{history}_{TIME}"


# what no feature may be called, in whatever case; `label` is the label's alone
RESERVED = frozenset(
    (
        *(POSITION, HISTORY, HISTORY_TIME, TARGET, TARGET_VALUE, TARGET_PROFIT, TIME),
        *(LIST, LIST_PLACE, LAST_PLACE, LAST_TOUCHED),
        *(TRAIN_EVENTS, KNOWN_EVENTS, LAST_PRICE, LAST_COST, EXPECTED_ITEMS, EXPECTED_SCORES),
    )
)
# what torch's modules call something else, so that no table of embeddings can have the name; the
# long ones with underscores are nobody's columns
OF_MODULES = frozenset(
    (
        *("append", "apply", "bfloat16", "buffers", "children", "clear", "compile", "copy"),
        *("cpu", "cuda", "double", "eval", "extend", "float", "forward", "half"),
        *("insert", "ipu", "items", "keys", "modules", "mtia", "parameters", "pop"),
        *("to", "train", "training", "type", "update", "values", "xpu"),
    )
)
_JOINS = '.#/\\"'  # they join names of weights, of lookups and of files, and end one in programs
_LONGEST = 200  # bytes: a table's name is that of a file


def fault_of(name: str) -> str | None:
    """Why no feature can have this name; None where one can."""
    if name.casefold() in RESERVED:
        return "is a column of logs or examples"
    if not name.strip():
        return "is empty"
    if name.startswith("_"):
        return "begins with '_', as columns do that are made on the way"
    if set(name) & set(_JOINS) or not name.isprintable():
        return f"holds one of {' '.join(_JOINS)} or what cannot be printed"
    if len(name.encode()) > _LONGEST:
        return f"is longer than {_LONGEST} bytes"
    return None


def free_name(column: str, side: str, taken: Collection[str]) -> str:
    """What to call the feature in a column of people's: its own name, if a feature can have it and
    it is not `taken` (casefolded names); otherwise one much like it, that begins with its `side`.
    """
    written = "".join(c if c.isprintable() and c not in _JOINS else "_" for c in column)
    plain = written.lstrip("_ ").encode()[: _LONGEST - 20].decode(errors="ignore")
    sided = f"{side}_{plain or 'column'}"
    numbered = (f"{sided}_{number}" for number in range(2, len(taken) + 3))
    for name in (column, plain, sided, *numbered):
        folded = name.casefold()
        if folded not in taken and folded not in OF_MODULES and fault_of(name) is None:
            return name
    raise AssertionError("one of more names than are taken is free")
