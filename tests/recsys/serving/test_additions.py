"""New items in a bundle in service: found, filtered, read in histories; or refused by name."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from served import Served

from feature_store.errors import DataError
from planted import SCHEMA, blurb
from recsys.serving.additions.add import add_items
from recsys.serving.additions.publish import publish_items
from recsys.serving.delta.apply import apply_delta
from recsys.serving.recommender import Recommender
from recsys.serving.releases import Releases
from recsys.serving.verifying import verify

LIKE = "i12"  # what the first of the new items is like, word for word


@pytest.fixture(scope="module")
def grown(text_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    folder = tmp_path_factory.mktemp("grown")
    assert add_items(text_bundle, items(), folder) == 2
    verify(folder)
    return Recommender.open(folder)


def items(**columns: list[object]) -> pa.Table:
    """One like i12, one of a genre and words that nobody knows, and one that is there."""
    told = {
        "item_id": ["n1", "n2", "i05"],
        "genre": ["g0", "new", "g1"],
        "words": [[], ["quite", "new"], []],
        "list_price": [12 / 40, None, 1.0],
        "title": ["Item number 12", "Something else", "Another title"],
        "blurb": [blurb(12), None, None],
    }
    table = pa.table({**told, **columns})
    schema = SCHEMA.side_schema("item")
    return table if columns else table.select(schema.names)


def asked(*history: str) -> pd.DataFrame:
    return pd.DataFrame({"history": [list(history)]})


def test_a_new_item_stands_beside_the_one_that_it_is_like(grown: Recommender) -> None:
    answers = grown.recommend(requests=asked("i03", "i10"), k=42)
    scores = dict(zip(answers["item"], answers["score"], strict=True))
    assert {"n1", "n2"} <= scores.keys()
    assert scores["n1"] == pytest.approx(scores[LIKE], abs=1e-5)
    titles = dict(zip(answers["item"], answers["title"], strict=True))
    assert titles["n1"] == "Item number 12" and titles["i05"] == "Item number 5"


def test_known_items_are_answered_as_before(text_bundle: Path, grown: Recommender) -> None:
    before = Recommender.open(text_bundle).recommend(requests=asked("i03", "i10"), k=20)
    after = grown.recommend(requests=asked("i03", "i10"), k=20, forbidden=["n1", "n2"])
    assert after["item"].tolist() == before["item"].tolist()
    assert after["score"].tolist() == pytest.approx(before["score"].tolist(), abs=1e-5)


def test_a_new_item_is_read_in_histories_and_not_shown_again(grown: Recommender) -> None:
    like = grown.recommend(requests=asked("i03", LIKE), k=42, forbidden=["n1"])
    new = grown.recommend(requests=asked("i03", "n1"), k=42, forbidden=[LIKE])
    assert "n1" not in new["item"].tolist()
    assert new["item"].tolist() == like["item"].tolist()
    assert new["score"].tolist() == pytest.approx(like["score"].tolist(), abs=1e-5)
    only = grown.recommend(requests=asked("n2"), k=3)  # a history of nothing else
    assert not only["fallback"].any()


def test_new_items_are_filtered_by_what_was_told_of_them(grown: Recommender) -> None:
    answers = grown.recommend(requests=asked("i03"), k=5, where='genre == "new"')
    assert answers["item"].tolist() == ["n2"]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (pa.concat_tables([items(), items()]), "item_id 'n1' occurs more than once"),
        (items().drop_columns(["title"]), "items have no 'title'; .* of which it reads title"),
        (items(colour=["a", "b", "c"]), "items have 'colour'; columns that this bundle knows: "),
        (items(item_id=["a", None, "b"]), "row 1, column 'item_id': .* is null"),
        (items(list_price=["1", "dear", "2"]), "row 1, column 'list_price': 'dear'"),
    ],
)
def test_items_that_do_not_fit_are_named(
    text_bundle: Path, tmp_path: Path, table: pa.Table, text: str
) -> None:
    with pytest.raises(DataError, match=text) as caught:
        add_items(text_bundle, table, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_model_that_reads_no_texts_refuses_them(sasrec: Served, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of planted, which does not know items by their texts"):
        add_items(sasrec.bundle, items(), tmp_path)


def test_new_items_are_published_as_a_delta_that_others_apply(
    text_bundle: Path, tmp_path: Path
) -> None:
    here, there = Releases(tmp_path / "here"), Releases(tmp_path / "there")
    for releases in (here, there):
        releases.publish(text_bundle)
    published = publish_items(here, items(), out=tmp_path / "items.zip")
    assert published == (2, here.current)
    apply_delta(tmp_path / "items.zip", there)
    for releases in (here, there):
        recommender = Recommender.open(releases.path(releases.must_serve()))
        assert "n1" in recommender.recommend(requests=asked("i03"), k=42)["item"].tolist()
    assert publish_items(here, items()) == (0, here.current)
    assert len(here.versions()) == 2
