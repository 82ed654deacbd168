"""Drawn negatives: of whom, from when on, how often, and the same in whatever order."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, write_examples
from feature_store.labels import LabelConfig, ListsConfig, NegativesConfig, TaskConfig
from feature_store.negatives import DrawnNegatives, log_draws
from feature_store.protocols import GlobalTime
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split

SCHEMA = Schema(
    user="u",
    item="i",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item", dtype="int64"),
        Feature(name="device", kind="id", side="context"),
    ),
)
CUTS = GlobalTime(
    validation_start=datetime.fromtimestamp(60, UTC), test_start=datetime.fromtimestamp(80, UTC)
)


def drawer(
    config: NegativesConfig, first: list[int], events: list[int], order: np.ndarray | None = None
) -> DrawnNegatives:
    """Item j has key 100 + j, first event and number of events; rows are numbered by `order`."""
    rows = np.arange(1, len(first) + 1) if order is None else order
    keys = np.empty(len(first), np.int64)
    keys[rows - 1] = 100 + np.arange(len(first))
    return DrawnNegatives(
        config,
        user_keys=np.arange(1, 2000),
        item_keys=keys,
        items=rows,
        first=np.array(first),
        events=np.array(events),
    )


@given(data=st.data(), drawn=st.sampled_from(["uniform", "popularity"]))
def test_no_own_item_none_of_later_and_the_same_by_any_numbers(
    data: st.DataObject, drawn: str
) -> None:
    first = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=12))
    events = data.draw(st.lists(st.integers(0, 40), min_size=len(first), max_size=len(first)))
    own = np.array(data.draw(st.lists(st.integers(1, len(first)), min_size=1)))
    seconds = np.array(data.draw(st.lists(st.integers(0, 6), min_size=len(own), max_size=len(own))))
    config = NegativesConfig.model_validate({"per_positive": 5, "drawn": drawn, "exponent": 0.5})
    made = drawer(config, first, events).draw(3, own, own, seconds)
    assert made.shape == (len(own), 5)
    for second, items in zip(seconds, made, strict=True):
        possible = {j + 1 for j, at in enumerate(first) if at < second} - set(own.tolist())
        assert set(items.tolist()) <= (possible or {0})
    renumbered = np.array(data.draw(st.permutations(range(1, len(first) + 1))))
    rows = renumbered[own - 1]
    again = drawer(config, first, events, renumbered).draw(3, rows, rows, seconds)
    np.testing.assert_array_equal(again, np.append(0, renumbered)[made])


@given(data=st.data(), share=st.sampled_from([0.01, 0.5, 1.0]))
def test_of_lists_each_known_item_that_is_not_the_users_own(
    data: st.DataObject, share: float
) -> None:
    """The first two of four with a half; where none is left, and beyond those, as without lists."""
    first = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=12))
    item = st.integers(1, len(first))
    own = np.array(data.draw(st.lists(item, min_size=1, max_size=4)))
    seconds = np.array(data.draw(st.lists(st.integers(0, 6), min_size=len(own), max_size=len(own))))
    of_row = st.lists(st.integers(0, len(first)), min_size=6, max_size=6)
    lists = np.array(data.draw(st.lists(of_row, min_size=len(own), max_size=len(own))))
    config = NegativesConfig(
        per_positive=4, lists=ListsConfig(run=Path("of"), share=share), drawn="popularity"
    )
    draws = drawer(config, first, [1] * len(first))
    plain = draws.draw(3, own, own, seconds)
    made = draws.draw(3, own, own, seconds, lists)
    listed = {0.01: 1, 0.5: 2, 1.0: 4}[share]
    for second, items, without, listing in zip(seconds, made, plain, lists, strict=True):
        possible = {i for i in listing.tolist() if i and first[i - 1] < second} - set(own.tolist())
        of_list = listed if possible else 0
        assert set(items[:of_list].tolist()) <= possible
        assert items[of_list:].tolist() == without[of_list:].tolist()


def test_items_of_a_list_are_drawn_alike_wherever_they_stand() -> None:
    config = NegativesConfig(per_positive=5, lists=ListsConfig(run=Path("of")))
    made = drawer(config, [0] * 6, [9] * 6)
    own, lists = np.array([3]), np.array([[2, 3, 6, 0, 5]])
    items = [made.draw(user, own, own, np.array([9]), lists) for user in range(1, 1500)]
    counts = np.bincount(np.concatenate(items).ravel(), minlength=7)
    assert counts[[2, 5, 6]].sum() == counts.sum()
    assert chisquare(counts[[2, 5, 6]]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("drawn", "exponent", "weights"),
    [("uniform", 1.0, [1, 1, 1, 1]), ("popularity", 1.0, [1, 1, 4, 16]),
     ("popularity", 0.5, [1, 1, 2, 4])],
)  # fmt: skip
def test_the_shares_are_those_asked_for(drawn: str, exponent: float, weights: list[int]) -> None:
    """Of four others, one of them without training events, between two of the user's own."""
    config = NegativesConfig.model_validate(
        {"per_positive": 5, "drawn": drawn, "exponent": exponent}
    )
    made = drawer(config, [0] * 6, [0, 1, 50, 4, 16, 70])
    own = np.array([3, 6])
    items = np.concatenate(
        [made.draw(user, own, own[:1], np.array([9])).ravel() for user in range(1, 1500)]
    )
    counts = np.bincount(items, minlength=7)[[1, 2, 4, 5]]
    assert counts.sum() == len(items)
    expected = np.array(weights) / sum(weights) * len(items)
    assert chisquare(counts, expected).pvalue > 1e-3


def log_of(folder: Path, rows: list[tuple[int, int, int, str]]) -> EventLog:
    log = EventLog.create(folder, SCHEMA)
    users, items, at, devices = zip(*rows, strict=True)
    times = [datetime.fromtimestamp(second, UTC) for second in at]
    log.append(pa.table({"u": users, "i": items, "time": times, "device": devices}))
    return log


@pytest.mark.parametrize("repeats", [False, True])
def test_rows_beside_every_positive_of_a_log_without_labels(repeats: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    seconds = np.sort(random.choice(100, 60, replace=False))
    events = [
        (int(random.integers(1, 6)), int(random.integers(1, 15)), int(second), "tv")
        for second in seconds
    ]
    config = LabelConfig(negatives=NegativesConfig(per_positive=3, repeats=repeats))
    made = []
    for name, rows, batch in (("a", events, 1), ("b", events[::-1], 2)):
        log = log_of(tmp_path / name, rows)
        with Engine(EngineConfig(threads=batch)) as engine:
            split = make_split(engine, log, CUTS, config)
            summary = write_examples(
                engine,
                split,
                Catalogue(log.folder, SCHEMA),
                tmp_path / f"{name}_examples",
                rows_of=RowsOf("event", labels=True),
                negatives=config.negatives,
            )
        roles = ("train", "validation", "test")
        files = {r: pq.read_table(tmp_path / f"{name}_examples" / f"{r}.parquet") for r in roles}
        assert {role: file.num_rows for role, file in files.items()} == summary.rows
        assert summary.parts["labels.negatives"]["per_positive"] == 3
        made.append([row for file in files.values() for row in file.to_pylist()])
    assert made[0] == made[1]
    rank = {item: row + 1 for row, item in enumerate(sorted({e[1] for e in events}))}
    first = {rank[i]: min(s for _, j, s, _ in events if j == i) for _, i, _, _ in events}
    own = {u: {rank[i] for v, i, _, _ in events if v == u} for u, *_ in events}
    user_of = sorted(own)
    rows, again = iter(made[0]), set[int]()
    following = next(rows, None)
    for user, item, second, _ in events:
        row, drawn = following, []
        assert row is not None
        assert (user_of[row["u"] - 1], row["i"], row["label"]) == (user, rank[item], 1)
        while (following := next(rows, None)) is not None and following["label"] == 0:
            drawn.append(following)
        taken = {rank[item]} if repeats else own[user]
        possible = {i for i, at in first.items() if at < second} - taken
        assert len(drawn) == (3 if possible else 0)
        assert {beside["i"] for beside in drawn} <= possible
        again |= {beside["i"] for beside in drawn} & own[user]
        for beside in drawn:  # the same moment, history and context
            assert {**beside, "i": 0, "label": 0} == {**row, "i": 0, "label": 0}
    assert following is None and bool(again) == repeats


def test_a_role_may_have_no_positive(tmp_path: Path) -> None:
    """As in a block of users of whom nobody has a positive in the role."""
    log = EventLog.create(
        tmp_path / "log",
        Schema(
            user="u",
            item="i",
            label="y",
            features=(
                *SCHEMA.features,
                Feature(name="y", kind="dense", side="context", dtype="float32"),
            ),
        ),
    )
    users, items, at, labels = zip(
        (1, 1, 1, 1.0), (2, 5, 9, 1.0), (1, 3, 50, 0.0), (1, 4, 70, 0.0), (1, 2, 90, 1.0),
        strict=True,
    )  # fmt: skip
    times = [datetime.fromtimestamp(second, UTC) for second in at]
    devices = ["tv"] * len(users)
    log.append(pa.table({"u": users, "i": items, "time": times, "device": devices, "y": labels}))
    config = LabelConfig(negatives=NegativesConfig(per_positive=2))
    with Engine(EngineConfig(threads=1)) as engine:
        summary = write_examples(
            engine,
            make_split(engine, log, CUTS, config),
            Catalogue(log.folder, log.schema),
            tmp_path / "examples",
            rows_of=RowsOf("event", labels=True),
            negatives=config.negatives,
        )
    assert (summary.rows["validation"], summary.rows["test"]) == (1, 3)


def test_rules_about_labels_need_labels(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", [(1, 1, 1, "tv"), (1, 2, 70, "tv"), (1, 3, 90, "tv")])
    rule = LabelConfig(positive_from=3, negatives=NegativesConfig())
    with Engine(EngineConfig(threads=1)) as engine:
        with pytest.raises(DataError, match="judge labels, and this log has none"):
            make_split(engine, log, CUTS, rule)
        with pytest.raises(DataError, match=r"labels\.negatives\.per_positive = 4"):
            make_split(engine, log, CUTS, LabelConfig())
    assert "labels.negatives" not in LabelConfig().parts()  # older fingerprints stay right
    drawn = LabelConfig(negatives=NegativesConfig()).parts()["labels.negatives"]
    assert drawn == {"per_positive": 4, "drawn": "uniform", "exponent": 1.0, "seed": 0}
    lists = ListsConfig(run=Path("runs/x"))
    listed = LabelConfig(negatives=NegativesConfig(lists=lists)).parts("1f2e")
    of_lists = {"run": "1f2e", "budget": 100, "share": 1.0}  # whose they are, wherever they lie
    assert listed["labels.negatives"] == {**drawn, "lists": of_lists}


def test_drawn_items_have_no_further_labels(tmp_path: Path) -> None:
    """What became of an event tells nothing of an item that was put beside it."""
    typed = Schema(**{**SCHEMA.model_dump(), "event_type": "device"})
    rows = [(1, 1, 1, "tv"), (2, 2, 2, "phone"), (1, 3, 59, "tv"), (1, 4, 61, "tv")]
    rows.append((1, 5, 90, "tv"))
    log = EventLog(log_of(tmp_path / "log", rows).folder, typed)
    config = LabelConfig(
        negatives=NegativesConfig(per_positive=1), tasks={"tv": TaskConfig(event_types=("tv",))}
    )
    with Engine(EngineConfig(threads=1)) as engine:
        write_examples(
            engine,
            make_split(engine, log, CUTS, config),
            Catalogue(log.folder, typed),
            tmp_path / "examples",
            rows_of=RowsOf("event", labels=True),
            negatives=config.negatives,
        )
    table = pq.read_table(tmp_path / "examples" / "train.parquet").to_pandas()
    drawn = table["label"] == 0
    assert drawn.any() and table["label#tv"].isna().equals(drawn)
    assert table.loc[~drawn, "label#tv"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("drawn", ["uniform", "popularity"])
def test_draws_are_undone(drawn: Literal["uniform", "popularity"]) -> None:
    """Log odds of items beside drawn ones, the draws undone, are those of the events; nearly, as
    nobody draws an own item, and the other 19 come a little more often for it."""
    counts = np.linspace(50, 350, 20).astype(int)
    config = NegativesConfig(per_positive=3, drawn=drawn)
    chosen = np.repeat(np.arange(1, 21), counts)
    keys = np.random.default_rng(0).integers(1, 1 << 60, len(chosen))
    negatives = DrawnNegatives(
        config,
        user_keys=keys,
        item_keys=np.arange(101, 121),
        items=np.arange(1, 21),
        first=None,
        events=counts,
    )
    rows = [
        negatives.draw(user, item[None], item[None], np.zeros(1, np.int64))
        for user, item in enumerate(chosen, start=1)
    ]
    beside = np.bincount(np.concatenate(rows).ravel(), minlength=21)[1:]
    undone = np.log(counts / beside) + log_draws(config, counts)
    share = counts / counts.sum()
    assert undone == pytest.approx(np.log(share / (1 - share)), abs=0.25)


def test_draws_from_lists_are_undone_of_their_items() -> None:
    """A quarter of eight draws from lists of ten: two tenths of each, beside six of all forty."""
    lists = ListsConfig(run=Path("of"), budget=10, share=0.25)
    events = np.full(40, 7)
    both = log_draws(NegativesConfig(per_positive=8, lists=lists), events)
    assert both == pytest.approx(np.full(40, np.log(2 / 10 + 6 / 40)))
    short = ListsConfig(run=Path("of"), budget=100)  # of all there are
    alone = log_draws(NegativesConfig(per_positive=8, lists=short), events)
    assert alone == pytest.approx(np.full(40, np.log(8 / 40)))
