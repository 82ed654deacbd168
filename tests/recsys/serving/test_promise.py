"""An index by promise: the cheapest that keeps it, or the nearest that could be kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from served import Served, rewrite
from torch import Tensor

from feature_store.errors import ConfigError, DataError
from recsys.server.live import Live
from recsys.serving.index import measure, promise
from recsys.serving.index.base import Queries
from recsys.serving.index.exact import ExactIndex
from recsys.serving.index.options import (
    ExactConfig,
    HNSWConfig,
    IndexConfig,
    IVFConfig,
    PrefixConfig,
    PromiseConfig,
)
from recsys.serving.index.promise import check_promise, keep_promise
from recsys.serving.index.record import MeasuredIndex
from recsys.serving.recommender import Recommender
from recsys.serving.verifying import checks

ITEMS, WIDTH = 1500, 16
FEW: list[list[IndexConfig]] = [
    [ExactConfig()],
    [IVFConfig(probes=n, lists=30) for n in (1, 4, 30)],
    [IVFConfig(probes=n, lists=30, codes="sq8") for n in (1, 4, 30)],
]
SPEEDS = {"exact": 10.0, "flat": 1000.0, "sq8": 990.0}


def speed_of(config: IndexConfig) -> float:
    return SPEEDS[config.codes if isinstance(config, IVFConfig) else config.kind]  # type: ignore[index]


@pytest.fixture(scope="module")
def vectors() -> Tensor:
    """Around thirty centres."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(30, WIDTH, generator=generator)
    drawn = torch.randint(30, (ITEMS,), generator=generator)
    return centres[drawn] + 0.5 * torch.randn(ITEMS, WIDTH, generator=generator)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three kinds, whose speeds no clock disturbs."""
    monkeypatch.setattr(promise, "families", lambda nested=(): FEW)
    monkeypatch.setattr(measure, "_LONG", 0.0)
    monkeypatch.setattr(measure, "ALONE", 1)

    def with_speed(index: Any, config: IndexConfig, *args: Any) -> MeasuredIndex:
        figures = measure.measured(index, config, *args)
        return figures.model_copy(update={"queries_per_second": speed_of(config)})

    monkeypatch.setattr(promise, "measured", with_speed)


def test_the_least_effort_that_keeps_the_recall_is_taken(few: None, vectors: Tensor) -> None:
    asked = PromiseConfig(recall=0.95)
    index, record = keep_promise(vectors, "s", asked, vectors[:100])
    # flat and sq8 are equally fast: fewer bytes win
    tried = [each for each in record.candidates if getattr(each.config, "codes", "") == "sq8"]
    assert [each.config for each in tried] == list(FEW[2][: len(tried)])
    assert record.chosen.config == tried[-1].config
    assert all(each.recall < 0.95 for each in tried[:-1]) and record.chosen.recall >= 0.95
    assert record.chosen.items == len(index) == ITEMS
    assert record.chosen.bytes_per_item == pytest.approx(index.bytes / ITEMS, abs=0.01)
    _, again = keep_promise(vectors, "s", asked, vectors[:100])
    assert again.chosen.config == record.chosen.config
    exact = ExactIndex(vectors, "s").search(queries := batch(vectors[:100]), 10)[1]
    nearest = index.search(queries, 10)[1]
    pairs = zip(exact.tolist(), nearest.tolist(), strict=True)
    by_hand = sum(len({*a} & {*b}) for a, b in pairs) / 1000
    assert record.chosen.recall == record.kept_recall == pytest.approx(by_hand)


def batch(vectors: Tensor) -> Queries:
    return Queries(vectors.unsqueeze(1), torch.ones(len(vectors), 1), "s")


def test_memory_decides_what_may_be_taken(few: None, vectors: Tensor) -> None:
    """4 bytes a number are 96 kB, and lists of them take more; an id of 8 and 16 of 1 are 36."""
    within = PromiseConfig(recall=0.999, memory_mb=0.0965)
    assert keep_promise(vectors, "s", within, vectors[:100])[1].chosen.config == ExactConfig()
    with pytest.raises(DataError) as caught:
        keep_promise(
            vectors, "s", PromiseConfig(recall=0.9999, k=20, memory_mb=0.05), vectors[:100]
        )
    message = str(caught.value)
    assert "no index of 1500 items keeps recall@20 of 0.9999 within 0.05 MB: recall 0.9" in message
    assert "fits (ivf of sq8, 30 probes, 0.0" in message
    assert "recall 0.9999 takes 0.096 MB (exact)" in message and "\n" not in message


def test_what_fails_with_all_items_is_told_and_the_next_is_tried(
    few: None, vectors: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = promise.measured

    def worse(index: Any, config: IndexConfig, *args: Any) -> MeasuredIndex:
        figures = right(index, config, *args)
        bad = getattr(config, "codes", "") == "sq8" and len(index) == ITEMS
        return figures.model_copy(update={"recall": 0.5}) if bad else figures

    monkeypatch.setattr(promise, "measured", worse)
    asked = PromiseConfig(recall=0.95, sample=ITEMS // 2)
    _, record = keep_promise(vectors, "s", asked, vectors[:100])
    assert record.chosen.config.kind == "ivf" and record.chosen.config.codes == "flat"
    assert {each.items for each in record.candidates} == {ITEMS // 2}
    # all efforts of sq8 were tried, then those of flat that would do for the sample
    failed = [each.config for each in record.missed if each.recall == 0.5]
    assert failed == list(FEW[2][-len(failed) :]) and record.missed[0].config == failed[0]


def test_the_fastest_come_first_and_of_equals_the_smallest() -> None:
    def figures(speed: float, held: float) -> tuple[list[IndexConfig], MeasuredIndex]:
        return [], MeasuredIndex(
            config=ExactConfig(),
            items=1,
            recall=1.0,
            queries_per_second=speed,
            milliseconds=1.0,
            bytes_per_item=held,
        )

    able = [figures(10, 1), figures(100, 9), figures(81, 7), figures(79, 5), figures(100, 8)]
    order = [able.index(each) for each in promise._cheapest_first(able)]  # type: ignore[arg-type]
    # 79 is more than a quarter slower than 100; once the others are gone it comes next
    assert order == [2, 4, 1, 3, 0]


def test_candidates_are_every_kind_with_rising_effort() -> None:
    kinds = [type(family[0]) for family in promise.families(nested=(8,))]
    assert {kind.model_fields["kind"].default for kind in kinds} == {
        *("exact", "ivf", "pq", "hnsw", "prefix")
    }
    assert promise.families()[-1][0] == HNSWConfig(codes="sq8", effort=16)
    assert promise.families((4, 8))[-1][-1] == PrefixConfig(prefix=8, shortlist=1600)


def test_all_candidates_are_built_or_left_out(vectors: Tensor) -> None:
    """Of ten items no codes can be trained: exact search is left."""
    _, record = keep_promise(vectors[:10], "s", PromiseConfig(recall=1.0), vectors[:20])
    assert record.chosen.recall == 1.0
    with pytest.raises(ConfigError, match="promise is about item vectors"):
        keep_promise(torch.arange(4), "s", PromiseConfig(), vectors[:10])


def test_a_bundle_keeps_its_promise_on_another_machine_or_is_refused(
    sasrec: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: None
) -> None:
    asked: Any = PromiseConfig(recall=0.9, k=5)
    folder = tmp_path / "bundle"
    index = sasrec.export(folder, asked).generator.record.index
    assert index.promise is not None and index.promise.promise == asked
    assert index.config == index.promise.chosen.config and index.config.kind != "promise"
    assert "queries.npy" in {path.name for path in folder.rglob("*")}
    worst = measure.recall_of
    monkeypatch.setattr(promise, "recall_of", lambda *args: worst(*args) - 0.2)
    Recommender.open(folder)  # where it was made nothing is measured again
    files, part = checks(folder)  # but where somebody asks
    assert files.well and not part.well and "promises recall@5 of 0.9, and finds" in part.told

    def elsewhere(manifest: dict[str, Any]) -> None:
        manifest["parts"]["generator"]["index"]["promise"]["machine"] = "another"

    rewrite(folder, elsewhere)
    with pytest.raises(DataError, match=r"promises recall@5 of 0\.9, and finds 0\..* on this mach"):
        Recommender.open(folder)
    Recommender.open(folder, measure_index=False)
    with pytest.raises(DataError, match="on this mach"):
        Live.open(folder)  # nor is it served
    assert Live.open(folder, measure_index=False).recommender is not None
    monkeypatch.undo()
    assert checks(folder)[1].told.endswith(", its index keeps its promise of recall@5 of 0.9")
    recommender = Recommender.open(folder)
    assert len(recommender.recommend(sasrec.recommender.users()[:1], k=3)) == 3


def test_what_queries_can_explain_is_no_broken_promise(few: None, vectors: Tensor) -> None:
    index, record = keep_promise(vectors, "s", PromiseConfig(recall=0.95), vectors[:100])
    check_promise(index, record, vectors[:100], "b")
    promised = record.promise.model_copy(update={"recall": 1.0})
    check_promise(index, record.model_copy(update={"promise": promised}), vectors[:100], "b")
    more = record.model_copy(update={"promise": promised, "kept_recall": 1.0})
    with pytest.raises(DataError, match=r"b: its index promises recall@10 of 1, and finds 0\.9"):
        check_promise(index, more, vectors[:100], "b")
