"""Inputs: the same tensor from a batch of examples as from the raw request that it stands for."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from feature_store.errors import DataError
from feature_store.vocabulary import Vocabulary
from recsys.data.block import Block
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader
from recsys.inputs import (
    INPUTS,
    Bag,
    Compared,
    History,
    Id,
    Input,
    Moment,
    Number,
    Requests,
    Times,
    from_json,
    to_json,
)

CLICKS, BUYS = History("item", 3, "clicks"), History("item", 2, "buys")
CLICKED = Times(CLICKS, "clicked")
EVERY: tuple[Input, ...] = (
    *(CLICKS, CLICKED, BUYS, Times(BUYS, "bought"), Moment(CLICKED)),
    *(Id("city"), Bag("tags", 4), Number("age", unknown="nan")),
    Compared(of="age", way="rank", list="page"),
)
VOCABULARIES = {
    "item": Vocabulary(pa.array([10, 20, 30, 40])),
    "city": Vocabulary(pa.array(["Bern", "Oslo"])),
    "tags": Vocabulary(pa.array(["x", "y"])),
}
EXAMPLES = pa.table(
    {
        "clicks": [[1, 2, 3, 4], [], [4]],
        "clicked": [[5, 6, 7, 8], [], [1 << 33]],
        "buys": [[2], [3, 1, 2], []],
        "bought": [[6], [1, 2, 3], []],
        "time": [9, 4, 1 << 34],
        "city": [2, 0, 1],
        "tags": [[1], [2, 1], []],
        "age": pa.array([30.5, 0.0, math.nan], pa.float32()),
        "age#rank": pa.array([1.0, 0.0, math.nan], pa.float32()),
    }
)


def raw() -> pa.Table:
    return pa.table({asked.name: asked.to_raw(EXAMPLES, VOCABULARIES) for asked in EVERY})


@pytest.mark.parametrize("asked", EVERY, ids=lambda asked: asked.name)
def test_values_of_single_requests_come_to_be_of_one_type(asked: Input) -> None:
    """Whatever type each of them has by itself, and where there are none: the tensor of all."""
    requests = raw()
    column = requests.column(asked.name).combine_chunks()
    alone = [pa.array([value]) for value in column.to_pylist()]
    parts = [asked.typed(value, VOCABULARIES) for value in alone]
    joined = pa.concat_arrays([*parts, asked.typed(pa.nulls(2), VOCABULARIES)])
    assert joined.null_count >= 2
    table = requests.set_column(
        requests.column_names.index(asked.name), asked.name, joined.slice(0, len(column))
    )
    torch.testing.assert_close(
        asked.from_requests(Requests(table, VOCABULARIES)),
        asked.from_requests(Requests(requests, VOCABULARIES)),
        equal_nan=True,
    )


def test_moments_of_any_type_come_to_be_seconds() -> None:
    day = 1_706_659_200  # 2024-01-31
    for value in ("2024-01-31", "2024-01-31T00:00:00Z", str(day), f"{day}.5", day, float(day)):
        assert CLICKED.typed(pa.array([[value], None, []]), VOCABULARIES).to_pylist() == [
            [day],
            None,
            [],
        ]
    dates = pa.array([datetime.date(2024, 1, 31), None])
    assert Moment(CLICKED).typed(dates, VOCABULARIES).to_pylist() == [day, None]
    for value, reason in (
        ("yesterday", "is not a time"),
        (20_240_131, "may be a day written YYYYMMDD"),
        (math.inf, "not finite"),
        (day * 1000, "may be milliseconds"),
    ):
        with pytest.raises(ValueError, match=reason):
            Moment(CLICKED).typed(pa.array([value]), VOCABULARIES)


def test_a_batch_and_the_request_it_stands_for_are_the_same_tensors(tmp_path: Path) -> None:
    """With two histories of the same items, each with its own times and its own length."""
    pq.write_table(EXAMPLES, tmp_path / "rows.parquet")
    names = [asked.name for asked in EVERY]
    reader = Reader(tmp_path / "rows.parquet", ReaderConfig(), columns=names, shuffle=False)
    (batch,) = reader
    requests = raw()
    assert requests["buys"].to_pylist() == [[20], [30, 10, 20], []]
    assert requests["city"].to_pylist() == ["Oslo", None, "Bern"]
    assert requests["age"].to_pylist() == [30.5, 0.0, None]
    for asked in EVERY:
        expected = asked.from_batch(batch)
        tensor = asked.from_requests(Requests(requests, VOCABULARIES))
        torch.testing.assert_close(tensor, expected, equal_nan=True, rtol=0, atol=0)
    assert CLICKS.from_batch(batch).tolist() == [[2, 3, 4], [0, 0, 0], [4, 0, 0]]
    assert BUYS.from_batch(batch).tolist() == [[2, 0], [1, 2], [0, 0]]
    assert Times(BUYS, "bought").from_batch(batch).tolist() == [[6, 0], [2, 3], [0, 0]]


def test_requests_of_one_list_are_compared_with_each_other() -> None:
    """Lists by whatever id; without them, or without the number, nothing is known of the rank."""
    of_list = (
        Compared(of="age", way="rank", list="page"),
        Compared(of="age", way="last", list="page"),
    )
    columns = {"age": [7, 1, 3, 2], "page": ["a", "b", "a", None], "last_touched": [0, 0, 4, 9]}
    told = [asked.from_requests(Requests(pa.table(columns), {})) for asked in of_list]
    torch.testing.assert_close(told[0], torch.tensor([1, 0.5, 0, math.nan]), equal_nan=True)
    expected = torch.tensor([math.log(2), math.nan, 0, math.nan])
    torch.testing.assert_close(told[1], expected, equal_nan=True)
    for lacking in ("age", "page"):
        less = Requests(pa.table(columns).drop_columns(lacking), {})
        assert all(asked.from_requests(less).isnan().all() for asked in of_list)
    untouched = Requests(pa.table(columns).drop_columns("last_touched"), {})
    assert of_list[1].from_requests(untouched).isnan().all()
    with pytest.raises(DataError, match="column 'age'"):
        of_list[0].from_requests(Requests(pa.table(columns | {"age": ["?"] * 4}), {}))


def test_what_a_request_does_not_bring_is_unknown() -> None:
    requests = pa.table({"other": [1, 2]})
    for asked in EVERY:
        tensor = asked.from_requests(Requests(requests, VOCABULARIES))
        unknown = tensor.isnan() if isinstance(asked, Number) else tensor == 0
        assert len(tensor) == 2 and unknown.all(), asked
    # as a bundle from before numbers could be unknown has it
    assert from_json({"input": "Number", "name": "age"}).from_requests(
        Requests(requests, VOCABULARIES)
    ).tolist() == [0, 0]


@pytest.mark.parametrize("asked", EVERY, ids=lambda asked: asked.name)
def test_values_of_the_wrong_type_are_refused_by_their_column(asked: Input) -> None:
    wrong = [[["?"]]] if asked.name == "clicked" else ["?"]
    values = {"clicks": [[10]], "buys": [[10]], asked.name: wrong}
    values |= {"city": pa.array([[1]])} if asked.name == "city" else {}
    with pytest.raises(DataError, match=f"column '{asked.name}'"):
        asked.from_requests(Requests(pa.table(values), VOCABULARIES))


@pytest.mark.parametrize("asked", EVERY, ids=lambda asked: asked.name)
def test_an_input_survives_a_manifest(asked: Input) -> None:
    written = json.loads(json.dumps(to_json(asked)))
    assert written["input"] == type(asked).__name__
    assert from_json(written) == asked


def test_every_kind_is_in_the_registry() -> None:
    assert {type(asked).__name__ for asked in EVERY} == set(INPUTS)


def test_training_along_a_sequence_reads_one_event_more_and_no_moment() -> None:
    """The last event is a target alone, and each is asked for at its own time."""
    along = {asked.name: asked.along_sequence() for asked in EVERY}
    lengths = {name: None if read is None else read.length for name, read in along.items()}
    assert lengths["clicks"] == lengths["clicked"] == 4
    assert lengths["buys"] == lengths["bought"] == 3
    assert along["time"] is None
    assert along["tags"] == Bag("tags", 4) and along["city"] == Id("city")
    assert History("item").along_sequence() == History("item")


def test_a_program_leaves_requests_and_lists_free() -> None:
    free = {asked.name: asked.dimensions() for asked in (*EVERY, History("item", 1, "last"))}
    assert {name for name, sizes in free.items() if 1 in sizes} == {
        *("clicks", "clicked", "buys", "bought", "tags")
    }
    lengths = {name: sizes[1].__name__ for name, sizes in free.items() if 1 in sizes}
    assert lengths["clicked"] == lengths["clicks"] != lengths["buys"] == lengths["bought"]


def test_examples_hold_one_width_of_integers() -> None:
    batch = Block.of(EXAMPLES).to_batch()
    assert {asked.from_batch(batch).dtype for asked in EVERY[:-2]} == {torch.int64}


def test_dimensions_have_names_of_their_own_whatever_columns_are_called() -> None:
    names = ["tags", "a b", "a-b", "gr\u00f6\u00dfe", "\u540d\u524d", "it's", "class"]
    dims = [Bag(name).dimensions()[1].__name__ for name in names]
    assert len(set(dims)) == len(names) and all(dim.isidentifier() for dim in dims)
    assert dims[0] == "tags_length"
