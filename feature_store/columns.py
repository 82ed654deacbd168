"""Names of the columns that logs and examples add beside the features; defined once."""

from __future__ import annotations

POSITION = "position"  # the order of the log: breaks ties in time, always the same way
ROLE = "role"  # of an event under a protocol

HISTORY, HISTORY_TIME, TARGET, TIME, LABEL = "history", "history_time", "target", "time", "label"
TARGET_VALUE = "target_value"  # net money of a target in millionths, beside `target`
TRAIN_EVENTS = "train_events"  # of an item: 0 means that it cannot have been learned
KNOWN_EVENTS = "known_events"  # of an item: events before the test, validation included
LAST_PRICE = "last_price"  # of an item, the newest one known before the test

# of events while examples are made of them; in no file
USER_ROW, ITEM_ROW, SECONDS = "_user_row", "_item_row", "_seconds"
PRICE, VALUE = "_price", "_value"  # of one piece, and of the whole event, in the log's currency


def time_of(history: str) -> str:
    """The column beside a history of when its events were, such as `history_time`."""
    return f"{history}_{TIME}"


# what no feature may be called
RESERVED = (
    *(POSITION, HISTORY, HISTORY_TIME, TARGET, TARGET_VALUE, TIME),
    *(TRAIN_EVENTS, KNOWN_EVENTS, LAST_PRICE),
    *(USER_ROW, ITEM_ROW, SECONDS, PRICE, VALUE),
)
