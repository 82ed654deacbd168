"""What rows a model is trained on, and what a folder of examples says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from feature_store.columns import HISTORY
from feature_store.errors import ConfigError, DataError
from feature_store.storage import Place
from feature_store.trees import json_tree

ALL_EVENTS: tuple[str, ...] = ()
MADE_FROM = "made_from.json"


@dataclass(frozen=True)
class RowsOf:
    """One training row `per` user, with the whole sequence, or per event, with what was before it.

    Attributes:
        per: "user": HISTORY holds all training events, each of which may become a target.
            "event": the event is the target, HISTORY the events before it.
        histories: which event types each list of earlier events holds, by its name; no type
            means every event. Beside a list `h` lies `h_time`, the seconds of its events.
        labels: rows carry the event's label, and validation and test have one row an event too.
            Lists then hold only events of an earlier second: what shares a page with the event,
            or was decided in the same moment, would give its label away. Events without a label
            are part of lists, and nobody's question.
        texts: models read the texts of items, or other features as if they were.
        positives: which of the lists hold only events whose label is 1.
        compared: numbers of events that rows also tell beside those of their list; see
            `feature_store.in_lists`.
        delay: lists of labelled training rows hold only events at least so many seconds older.
    """

    per: Literal["user", "event"] = "user"
    histories: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {HISTORY: ALL_EVENTS}, hash=False
    )
    labels: bool = False
    texts: bool = False
    positives: tuple[str, ...] = ()
    delay: int = 0
    compared: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.positives and not self.labels:
            raise ConfigError(f"the list {self.positives[0]!r} holds positives: it needs labels")
        if self.delay and not self.labels:
            raise ConfigError("lists are delayed in rows with labels alone")
        if self.labels and self.per == "user":
            raise ConfigError("labels are of events: rows with labels are per = 'event'")
        if not self.labels and HISTORY not in self.histories:
            raise ConfigError(f"rows without labels need the list {HISTORY!r} among histories")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RowsOf:
        """The value that `asdict` took apart, also after a way through JSON."""
        histories = {name: tuple(types) for name, types in values["histories"].items()}
        positives = tuple(values.get("positives", ()))
        compared = tuple(values.get("compared", ()))
        tuples = {"histories": histories, "positives": positives, "compared": compared}
        return cls(**{**values, **tuples})

    @property
    def requested(self) -> dict[str, tuple[str, ...]]:
        """The lists of a request: what was seen is always among them."""
        return {HISTORY: ALL_EVENTS, **self.histories}


def files_of(folder: Place, role: str) -> list[Place]:
    """The files of a role's rows in a folder of examples, in their order."""
    return sorted((folder / f"{role}.parquet").glob("[!._]*.parquet"))


def parts_of(folder: Place, name: str) -> list[Place]:
    """The files of a table of examples, which has one more for each day that joined its log."""
    return files_of(folder, name) or [folder / f"{name}.parquet"]


@dataclass(frozen=True)
class ExamplesSummary:
    """What a folder of examples holds: `events` and `rows` are counts by role, `log_rows` events of
    the log, of which so many were `read`, and `told_of_users` how many users the catalogue told of,
    with a digest of that."""

    protocol: str
    fingerprint: str
    parts: dict[str, Any]
    rows_of: RowsOf
    history_length: int
    train_roles: tuple[str, ...]
    events: dict[str, int]
    rows: dict[str, int]
    log_rows: int | None = None
    read: int | None = None
    told_of_users: tuple[int, str] = (0, "")

    def save(self, folder: Path) -> None:
        """Write `examples.json`."""
        (folder / "examples.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Place) -> ExamplesSummary:
        """Read `examples.json`. Raises DataError where it is not there, or not whole."""
        path = folder / "examples.json"
        try:
            values = json_tree(path.read_text())
            values["rows_of"] = RowsOf.from_dict(values["rows_of"])
            values["train_roles"] = tuple(values["train_roles"])
            values["told_of_users"] = tuple(values.get("told_of_users", (0, "")))
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{path} is no record of examples ({why}): remove {folder}, and they are made again"
            ) from None
