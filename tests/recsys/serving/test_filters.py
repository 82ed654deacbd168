"""Answers of allowed items alone, from the model, the fallback and every stage of a cascade, and
where each item comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch
from served import Served

from conformance import fresh, learn, small
from feature_store.catalogue import Catalogue
from feature_store.columns import LABEL
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from planted import ITEMS, Shape
from recsys.cascade.cascade import Cascade
from recsys.cascade.generator import Generator
from recsys.cascade.options import CascadeConfig
from recsys.cascade.ranking import Ranking
from recsys.cascade.translation import Translation
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.export.bundle import PartExport, write_bundle
from recsys.export.cascade import CascadeExport
from recsys.export.generator import GeneratorExport
from recsys.export.ranker import RankerExport
from recsys.lists.merging import MERGES
from recsys.lists.search import search
from recsys.serving.generator import Generator as ServedGenerator
from recsys.serving.index.options import ExactConfig
from recsys.serving.listed import Listed
from recsys.serving.manifest import About
from recsys.serving.recommender import Recommender

ALL = 100  # more than there are
BUDGETS = {"knn": 4, "ease": 6}
HISTORIES = [["i00", "i07"], [], ["i14", "i21", "i28"], ["new"]]


def of_genre(number: int) -> set[str]:
    return {f"i{item:02d}" for item in range(ITEMS) if item % 4 == number and item % 11}


OF_G1 = of_genre(1)


def asked(recommender: Recommender, k: int, **options: Any) -> pd.DataFrame:
    return recommender.recommend(requests=pd.DataFrame({"history": HISTORIES}), k=k, **options)


def lists(answers: pd.DataFrame) -> list[list[str]]:
    return [answers.loc[answers["request"] == row, "item"].tolist() for row in range(4)]


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"where": 'genre == "g1"'}, OF_G1),
        ({"allowed": ["i01", "i33", "nowhere", "i41"]}, {"i01", "i33"}),
        ({"forbidden": [f"i{item:02d}" for item in range(3, ITEMS)]}, {"i00", "i01", "i02"}),
        (
            {"where": '"w1" in words or list_price is None', "forbidden": ["i26"]},
            {f"i{i:02d}" for i in range(ITEMS) if i % 13 == 0 or (i % 6 == 1 and i % 3)}
            | {f"i{i:02d}" for i in range(ITEMS) if i % 5 == 1 and i % 3 == 2},
        ),
        ({"where": "list_price > 1e9"}, set()),
    ],
)
def test_a_filter_leaves_what_the_whole_list_holds_of_it(
    sasrec: Served, options: dict[str, Any], allowed: set[str]
) -> None:
    """In the same order and with the same scores, k of them wherever there are so many; for those
    of whom nothing is known, too."""
    allowed = allowed - {"i26"} if "forbidden" in options else allowed
    whole = asked(sasrec.recommender, ALL)
    expected = whole[whole["item"].isin(allowed)]
    answers = asked(sasrec.recommender, ALL, **options)
    columns = ["request", "item", "score", "origin", "fallback"]
    pd.testing.assert_frame_equal(
        answers[columns].reset_index(drop=True), expected[columns].reset_index(drop=True)
    )
    for few, all_of_it in zip(
        lists(asked(sasrec.recommender, 3, **options)), lists(expected), strict=True
    ):
        assert few == all_of_it[:3]


def test_diverse_lists_are_of_allowed_items_and_say_where_they_come_from(sasrec: Served) -> None:
    where = "list_price >= 0.25"
    answers = asked(sasrec.recommender, 5, where=where, diversity=100.0, category="genre")
    places = answers["item"].str[1:].astype(int)
    assert (places >= 10).all() and answers.groupby("request").size().tolist() == [5] * 4
    origins = answers.groupby("request")["origin"].unique().map(list).tolist()
    assert origins == [["generator"], ["fallback"], ["generator"], ["fallback"]]


def test_items_that_move_keep_their_origins() -> None:
    listed = Listed(
        torch.tensor([[3.0, 2, 1]]), torch.tensor([[5, 7, 9]]), torch.tensor([[1, 2, 3]])
    )
    moved = listed.with_places(torch.tensor([[1.0, 2]]), torch.tensor([[9, 7]]))
    assert moved.origins.tolist() == [[3, 2]] and moved.places.tolist() == [[9, 7]]
    assert listed.with_places(moved.scores, torch.tensor([[9, -1]])).origins.tolist() == [[3, 0]]


def test_the_item_filter_reaches_known_users_and_refuses_in_a_line(sasrec: Served) -> None:
    answers = sasrec.recommender.recommend([1001, 1002], k=3, where='genre in ("g0", "g2")')
    assert answers.groupby("user").size().tolist() == [3, 3]
    assert answers["item"].str[1:].astype(int).mod(2).eq(0).all()
    with pytest.raises(DataError, match=r"no column 'colour'.* genre .*list_price"):
        sasrec.recommender.recommend([1001], where="colour == 'red'")


class Interests(torch.nn.Module):
    """Three interests in the place of a program's one, with weights of their own."""

    def __init__(self, program: torch.nn.Module, weights: list[float]) -> None:
        super().__init__()
        self.program, self.weights = program, torch.tensor(weights)

    def forward(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        vectors, _ = self.program(inputs)
        return torch.cat([vectors, vectors.flip(2), -vectors], 1), self.weights.expand(
            len(vectors), 3
        )


@pytest.mark.parametrize(
    ("merge", "weights"), [("score", [1, 1, 1]), ("quota", [5, 3, 2]), ("rounds", [2, 3, 1])]
)
def test_interests_share_what_is_allowed(sasrec: Served, merge: Any, weights: list[float]) -> None:
    """Quotas and rounds are filled with allowed items, as if there were no others."""
    whole = sasrec.recommender.generator
    record = whole.record.model_copy(update={"merge": merge})
    generator: ServedGenerator = replace(
        whole, record=record, program=Interests(whole.program, weights)
    )
    recommender = Recommender(sasrec.recommender.bundle)
    recommender.finder = generator
    table = pa.table({"history": HISTORIES[::2]})
    answers = recommender.recommend(requests=table, k=7, where='genre in ("g1", "g2")')
    inputs, seen = recommender.encode(table)
    there = torch.tensor([item in of_genre(1) | of_genre(2) for item in whole.item_ids.to_pylist()])
    own = torch.where(there, there.cumsum(0) - 1, -1)  # places among the allowed ones
    vectors, given, _ = generator.queries(inputs)
    hidden = own[seen.clamp(min=0)].masked_fill(seen < 0, -1)
    scores, places = search(vectors, given, whole.items[there], 7, hidden, MERGES[merge])
    items = whole.item_ids.filter(pa.array(there.numpy()))
    assert answers["item"].tolist() == items.take(pa.array(places.flatten().numpy())).to_pylist()
    torch.testing.assert_close(torch.tensor(answers["score"]).float(), scores.flatten())


@pytest.fixture(scope="module")
def funnel(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Recommender:
    """Two generators that need a history, with small budgets, a coarse and a fine ranker."""
    own, labelled = planted["sequences"], planted["labelled"]
    folder = tmp_path_factory.mktemp("funnel")
    with join("cpu") as group:
        found = {
            "knn": learn(small("item_knn", neighbours=100), own, folder / "knn", group),
            "ease": learn(small("ease"), own, folder / "ease", group),
        }
    dcn = fresh(small("dcn"), labelled, seed=3).eval()

    def between(part: Examples, model: Any) -> Translation:
        features = [asked.feature for asked in model.inputs if asked.feature is not None]
        return Translation.between(own, part, features)

    cascade = Cascade(
        {
            name: Generator(model, BUDGETS[name], between(own, model))
            for name, model in found.items()
        },
        coarse=Ranking(dcn, LABEL, between(labelled, dcn)),
        keep=5,
        fine=Ranking(dcn, LABEL, between(labelled, dcn)),
    )
    config = CascadeConfig.model_validate(
        {
            "generators": {name: {"run": "a", "budget": of} for name, of in BUDGETS.items()},
            "coarse": {"run": "b", "keep": 5},
            "fine": {"run": "b"},
        }
    )
    about, options = About(run="planted", model="planted"), {"golden": 8}
    exports: dict[str, PartExport] = {
        "cascade": CascadeExport(
            cascade.eval(),
            config,
            own,
            own.candidates(),
            parts={"knn": "a_knn", "ease": "an_ease", "coarse": "b", "fine": "b"},
            tasks={"coarse": LABEL, "fine": LABEL},
            about=about,
            **options,
        ),
        "a_knn": GeneratorExport(
            found["knn"], own, own.candidates(), index=ExactConfig(), about=about, **options
        ),
        "an_ease": GeneratorExport(
            found["ease"], own, own.candidates(), index=ExactConfig(), about=about, **options
        ),
        "b": RankerExport(dcn, labelled, about=about, **options),
    }
    catalogue = Catalogue(planted_log.folder, planted_log.schema)
    return Recommender(write_bundle(folder / "bundle", exports, catalogue, own_ids=True))


def test_every_stage_of_a_cascade_sees_allowed_items_alone(funnel: Recommender) -> None:
    """k of them, though no generator has a budget of 8 and the coarse ranker keeps 5."""
    answers = asked(funnel, 8, where='genre == "g1"')
    assert set(answers["item"]) <= OF_G1 and len(OF_G1) == 9
    assert [len(set(items)) for items in lists(answers)] == [8] * 4
    assert answers["score"].groupby(answers["request"]).is_monotonic_decreasing.all()
    whole = [set(items) for items in lists(asked(funnel, 8))]
    assert [len(items) for items in whole] == [5, 8, 5, 8]  # what the coarse ranker keeps


def test_items_of_a_cascade_name_the_generators_that_found_them(funnel: Recommender) -> None:
    answers = asked(funnel, 5)
    names = {"knn": "a_knn", "ease": "an_ease"}
    parts = {stage: Recommender(funnel.bundle, name) for stage, name in names.items()}
    alone = {stage: lists(asked(part, BUDGETS[stage])) for stage, part in parts.items()}
    for row in (0, 2):
        for item, origin in answers.loc[answers["request"] == row, ["item", "origin"]].values:
            finders = [name for name, items in alone.items() if item in items[row]]
            assert finders and origin == "+".join(finders)
    assert {"ease", "knn+ease"} <= set(answers["origin"])
    fallen = answers[answers["fallback"]]
    assert set(fallen["origin"]) == {"fallback"} and set(fallen["request"]) == {1, 3}
    assert set(asked(parts["ease"], 2)["origin"]) == {"an_ease", "fallback"}
