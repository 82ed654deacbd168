"""What answers where nothing is known of a history: what is popular lately, by segment of users."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from served import FALLBACK, GOLDEN, Served, assert_refused, forge

from feature_store.errors import ConfigError, DataError
from feature_store.vocabulary import Vocabulary
from planted import SCHEMA, Shape
from recsys.data.examples import Examples, Interactions
from recsys.export.fallback import check_segments, popular_by_segment, popular_lately
from recsys.serving.fallback import Fallback
from recsys.serving.manifest import FallbackRecord
from recsys.serving.options import FallbackConfig
from recsys.serving.recommender import Recommender
from recsys.serving.row_answers import answer_rows

DAY = 86_400
# user rows 1 and 2 are of the first club, 3 of the second, and 4 of none; items 1 to 4
SOLD = [
    *((1, 4, 0), (1, 4, 1)),  # long ago
    *((1, 2, 90), (2, 2, 91), (2, 1, 92), (3, 1, 93), (3, 3, 94), (4, 1, 95), (4, 3, 95)),
    (4, 1, 100),
]


class Sold(Examples):
    num_items = 6

    def interactions(self) -> Interactions:
        users, items, days = (torch.tensor(column) for column in zip(*SOLD, strict=True))
        return Interactions(users, items, days * DAY)

    def event_users(self) -> torch.Tensor:
        return self.interactions().users

    def user_column(self, feature: Any, users: torch.Tensor) -> torch.Tensor:
        assert feature.name == "club"
        return torch.tensor([0, 1, 1, 2, 0])[users]

    def vocabulary(self, feature: str) -> Vocabulary:
        return Vocabulary(pa.array(["chess", "rowing"]))


def test_segments_count_their_own_events_and_something_of_everybodys(
    planted: dict[Shape, Examples],
) -> None:
    """Lately item 1 sold 4 times, 2 and 3 twice: 8 in all. With 2 as many as the least, each of
    these counts 2 / 8."""
    examples = Sold(planted["sequences"].folder)
    popular = popular_lately(examples, torch.tensor([1, 2, 3, 4, 5]))
    assert popular.list.ids.tolist() == [[1, 2, 3, 4, 5]]
    assert popular.list.scores.tolist() == [[4, 2, 2, 0, 0]]
    record, lists = popular_by_segment(examples, popular, FallbackConfig(by="club", least=2))
    assert (record.by, record.least, record.share, record.days) == ("club", 2, 0.25, 30)
    assert [listed.segment.as_py() for listed in lists] == ["chess", "rowing"]
    # chess: two of item 2, one of item 1; rowing: one of item 1, one of item 3
    assert lists[0].list.ids.tolist() == [[2, 1, 3, 4, 5]]
    assert lists[0].list.scores.tolist() == [[2.5, 2, 0.5, 0, 0]]
    assert lists[1].list.ids.tolist() == [[1, 3, 2, 4, 5]]
    assert lists[1].list.scores.tolist() == [[2, 1.5, 0.5, 0, 0]]
    _, few = popular_by_segment(examples, popular, FallbackConfig(by="club", least=3))
    assert [listed.segment.as_py() for listed in few] == ["chess"]  # rowing had but two
    _, none = popular_by_segment(examples, popular, FallbackConfig(by="club", least=4))
    assert none == []


@pytest.fixture
def lists(tmp_path: Path) -> Fallback:
    """Everybody's list, and the beginning of one for a segment."""
    columns = {
        "item": ["a", "b", "c", "d", "c", "b"],
        "score": pa.array([8, 4, 2, 0, 5, 3], pa.float32()),
        "segment": pa.array([None] * 4 + [7, 7]),
    }
    pq.write_table(pa.table(columns), tmp_path / "fallback.parquet")
    record = FallbackRecord(model="popularity", days=None, by="region", least=2, share=0.25)
    return Fallback.read(tmp_path / "fallback.parquet", pa.array(["d", "c", "b", "a"]), record)


def test_a_segments_list_goes_on_with_everybodys(lists: Fallback) -> None:
    asked = pa.table({"region": ["7", None, "8", "7"]})
    segments = lists.segments_of(asked)
    assert segments.tolist() == [1, 0, 0, 1]
    answers = lists.top(segments, 3)
    assert answers.places.tolist() == [[1, 2, 3], [3, 2, 1], [3, 2, 1], [1, 2, 3]]
    assert answers.scores.tolist() == [[5, 3, 2], [8, 4, 2], [8, 4, 2], [5, 3, 2]]
    assert answers.origins.tolist() == [[-2] * 3, [-1] * 3, [-1] * 3, [-2] * 3]
    allowed = torch.tensor([True, False, True, True])  # all but c
    some = lists.top(segments[:2], 2, allowed)
    assert some.places.tolist() == [[2, 3], [3, 2]] and some.scores.tolist() == [[3, 2], [8, 4]]
    assert lists.top(segments[:1], 9).places.tolist() == [[1, 2, 3, 0]]
    assert lists.segments_of(pa.table({"history": [[1]]})).tolist() == [0]
    with pytest.raises(DataError, match="column 'region' of the requests cannot be read"):
        lists.segments_of(pa.table({"region": ["north"]}))


def test_a_long_list_is_looked_up_as_far_as_it_is_asked_for(tmp_path: Path) -> None:
    """Its first 1000 items in one pass, and all where some are not allowed: the same places."""
    numbers = np.random.default_rng(0).permutation(1500)
    ids = pa.array([f"i{number}" for number in numbers.tolist()])
    listed = pa.table({"item": ids, "score": pa.array(np.arange(1500.0, 0, -1), pa.float32())})
    pq.write_table(listed, tmp_path / "fallback.parquet")
    record = FallbackRecord(model="popularity", days=None, by=None, least=0, share=0.0)
    items = pa.array([f"i{number}" for number in range(1500)])
    popular = Fallback.read(tmp_path / "fallback.parquet", items, record)
    nobody = np.zeros(1, np.int64)
    for k in (1, 1000, 1001, 1500):
        answer = popular.top(nobody, k)
        assert answer.places[0].tolist() == numbers[:k].tolist()
        assert answer.scores[0].tolist() == list(range(1500, 1500 - k, -1))
    even = torch.arange(1500) % 2 == 0
    kept = [number for number in numbers.tolist() if number % 2 == 0]
    assert popular.top(nobody, 4, even).places[0].tolist() == kept[:4]


@pytest.fixture(scope="module")
def clubs(sasrec: Served, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """A bundle with lists of clubs, of which the model reads nothing."""
    folder = tmp_path_factory.mktemp("clubs") / "bundle"
    return sasrec.export(folder, fallback=FallbackConfig(by="club", least=50))


def test_whoever_says_the_segment_gets_its_list(clubs: Recommender, sasrec: Served) -> None:
    examples = sasrec.examples
    events = examples.interactions()
    club = pd.Series(
        examples.vocabulary("club")
        .decode(examples.user_column(SCHEMA["club"], events.users).numpy())
        .to_pylist()
    )
    own = pd.Series(events.items.numpy())[club == "chess"].value_counts()
    everybody = pd.Series(events.items.numpy()).value_counts()
    expected = (own.reindex(everybody.index).fillna(0) + 50 * everybody / len(club)).nlargest(5)
    columns = {"history": [[], [], [], ["i00"]], "club": ["chess", None, "golf", "chess"]}
    answers = clubs.recommend(requests=pd.DataFrame(columns), k=5)
    chess = answers[answers["request"] == 0]
    assert set(chess["origin"]) == {"fallback:chess"} and chess["fallback"].all()
    assert chess["score"].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    ids = examples.vocabulary("item_id").values
    assert sorted(chess["item"]) == sorted(ids[row - 1].as_py() for row in expected.index)
    plain = ["rank", "item", "score", "fallback"]
    for row in (1, 2):
        alike = answers[answers["request"] == row]
        assert set(alike["origin"]) == {"fallback"}
        whole = sasrec.recommender.recommend([7], k=5)
        pd.testing.assert_frame_equal(
            alike[plain].reset_index(drop=True), whole[plain].reset_index(drop=True)
        )
    assert set(answers.loc[answers["request"] == 3, "origin"]) == {"generator"}
    rows = answer_rows(clubs, [{"history": [], "club": "chess"}], k=5).table
    assert rows["item"].to_pylist() == chess["item"].tolist()


def test_lists_of_segments_are_golden_too(clubs: Recommender, tmp_path: Path) -> None:
    record = clubs.generator.record.fallback
    assert record is not None and (record.by, record.least) == ("club", 50)
    folder = clubs.bundle.folder
    golden = pq.read_table(folder / GOLDEN)
    asked = golden.filter(pa.compute.is_null(golden["history"]))
    assert asked["club"].to_pylist() == [None, "chess", "rowing"]
    Recommender.open(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    listed = pq.read_table(copy / FALLBACK)
    assert listed.column_names == ["item", "score", "segment"]
    assert listed["segment"].to_pylist()[:41] == [None] * 40 + ["chess"]
    mixed = listed.to_pandas()
    mixed["segment"] = mixed["segment"].map({"chess": "rowing", "rowing": "chess"})
    pq.write_table(pa.Table.from_pandas(mixed, listed.schema), copy / FALLBACK)
    forge(copy, FALLBACK)
    assert_refused(copy, "golden request 1 answers")


def test_a_column_that_divides_nobody_is_refused() -> None:
    check_segments(FallbackConfig(by="club"), SCHEMA)
    for name in ("user_id", "age", "badges", "genre", "country"):
        with pytest.raises(ConfigError, match=f"fallback.by: '{name}' is no .* there are: club$"):
            check_segments(FallbackConfig(by=name), SCHEMA)
