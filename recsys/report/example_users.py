"""Example users: what a few of them did, did next, and were recommended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from feature_store.catalogue import Catalogue
from feature_store.columns import HISTORY, TARGET
from feature_store.errors import ConfigError, DataError
from feature_store.parquet import read_parquet, read_rows
from feature_store.schema import Schema
from feature_store.vocabulary import Vocabulary, vocabulary_file
from recsys.config import parse_config
from recsys.runs.finished import Run
from recsys.runs.phases import phases_of_run

USERS = 10
ITEMS = 10
"""Of a user's history the newest, of the targets the first, and of a list the first shown."""


@dataclass(frozen=True)
class Shown:
    """An item as people read it: its title and id; `hit` where list and targets share it."""

    title: str | None
    id: str
    hit: bool


@dataclass(frozen=True)
class ExampleUser:
    """A user of the test; `events` and `num_targets` also count what is not shown.

    `ordered` says whether the history's order means anything.
    """

    id: str
    events: int
    ordered: bool
    history: list[Shown]
    num_targets: int
    targets: list[Shown]
    lists: dict[str, list[Shown]]


def example_users(of: Mapping[str, tuple[Run, str]]) -> list[ExampleUser]:
    """Users drawn by the run's seed, one from each tenth of all by length of history.

    `of` says which run and retriever every shown list is of. Users, histories and targets are
    those of the first; whom another run did not judge has no list there. Nobody's figures are
    looked at to choose. Empty where the run's examples or lists are gone.
    """
    run, _ = next(iter(of.values()))
    paths = {name: run.files.lists_of(retriever) for name, (run, retriever) in of.items()}
    examples = run.files.phase(phases_of_run(run)[-1].name).examples
    if not all(path.exists() for path in (examples / "test.parquet", *paths.values())):
        return []
    schema = Schema.load(examples / "schema.json")
    users = _choose(next(iter(paths.values())), int(run.results["seed"]))
    requests = _requests(examples, schema, users)
    lists = {name: _lists(path, users) for name, path in paths.items()}
    items = [i for history, targets in requests.values() for i in history[-ITEMS:] + targets]
    items += [i for of_users in lists.values() for ids in of_users.values() for i in ids[:ITEMS]]
    titles = titles_of(run, schema, items)
    exclude_seen = run.results.get("protocol_parts", {}).get("split.seen") == "exclude"
    shown = []
    for user in users.to_pylist():
        history, targets = requests.get(user, ([], []))
        # The evaluator counts an item once, and does not ask for what it may not recommend.
        targets = [t for t in dict.fromkeys(targets) if not (exclude_seen and t in set(history))]
        of_user = {name: of_users.get(user, [])[:ITEMS] for name, of_users in lists.items()}
        recommended = {item for ids in of_user.values() for item in ids}
        shown.append(
            ExampleUser(
                id=str(user),
                events=len(history),
                ordered=schema.clock != "none",
                history=_shown(history[-ITEMS:], titles, hits=()),
                num_targets=len(targets),
                targets=_shown(targets[:ITEMS], titles, hits=recommended),
                lists={name: _shown(ids, titles, hits=targets) for name, ids in of_user.items()},
            )
        )
    return shown


def example_requests(run: Run, retriever: str) -> list[tuple[Any, list[Any], list[Any]]]:
    """Of the example users: raw id, history, oldest first, and the list of a retriever."""
    examples = run.files.phase(phases_of_run(run)[-1].name).examples
    path = run.files.lists_of(retriever)
    if not ((examples / "test.parquet").exists() and path.exists()):
        return []
    users = _choose(path, int(run.results["seed"]))
    requests = _requests(examples, Schema.load(examples / "schema.json"), users)
    lists = _lists(path, users)
    return [
        (user, requests[user][0], lists.get(user, []))
        for user in users.to_pylist()
        if user in requests
    ]


def _shown(ids: Iterable[Any], titles: Mapping[Any, str], *, hits: Iterable[Any]) -> list[Shown]:
    hits = set(hits)
    return [Shown(titles.get(i), str(i), i in hits) for i in ids]


def _choose(path: Path, seed: int) -> pa.Array:
    """Raw ids of the users to show, those with short histories first."""
    table = read_parquet(path, ["user", "history"])
    order = table.append_column("row", pa.array(range(table.num_rows))).sort_by(
        [("history", "ascending"), ("user", "ascending")]
    )
    tenths = np.array_split(order["row"].to_numpy(), min(USERS, table.num_rows))
    rng = np.random.default_rng(seed)
    rows = [int(rng.choice(tenth)) for tenth in tenths if len(tenth)]
    return table["user"].take(pa.array(rows, pa.int64())).combine_chunks()


def _requests(
    examples: Path, schema: Schema, users: pa.Array
) -> dict[Any, tuple[list[Any], list[Any]]]:
    """Raw id of a user -> raw ids of the history, oldest first, and of the targets."""
    of_users, of_items = (
        Vocabulary.load(examples / "vocabulary" / vocabulary_file(schema[name].table_name))
        for name in (schema.user, schema.item)
    )
    rows = of_users.encode(users)
    columns = [schema.user, HISTORY, TARGET]
    table = read_rows(examples / "test.parquet", columns, schema.user, pa.array(rows))
    raw = dict(zip(rows.tolist(), users.to_pylist(), strict=True))
    return {
        raw[request[schema.user]]: (
            of_items.decode(np.array(request[HISTORY], np.int64)).to_pylist(),
            of_items.decode(np.array(request[TARGET], np.int64)).to_pylist(),
        )
        for request in table.to_pylist()
    }


def _lists(path: Path, users: pa.Array) -> dict[Any, list[Any]]:
    columns = ["user", "recommended"]
    table = read_rows(path, columns, "user", users)
    return dict(zip(*(table[name].to_pylist() for name in columns), strict=True))


def titles_of(run: Run, schema: Schema, items: list[Any]) -> dict[Any, str]:
    """Titles of items by raw id, from the catalogue of the log, else from the bundle's copy."""
    if schema.title is None or not items:
        return {}
    try:
        store = parse_config(run.config).store_folder
    except (ConfigError, DataError):  # of another version: the log may be anywhere
        store = run.bundle
    for path in (Catalogue(store, schema).path("item"), run.bundle / "catalogue.parquet"):
        if path.exists():
            columns = [schema.item, schema.title]
            table = read_rows(path, columns, schema.item, pa.array(items))
            pairs = zip(*(table[name].to_pylist() for name in columns), strict=True)
            return {item: title for item, title in pairs if title and title.strip()}
    return {}
