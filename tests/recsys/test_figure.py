"""A figure's name as text and back."""

from __future__ import annotations

import math

import pytest

from recsys.figure import Figure, cut_offs, first_cut, looked_at_first


@pytest.mark.parametrize(
    ("text", "figure"),
    [
        ("NDCG@10", Figure("NDCG", 10)),
        ("AUC", Figure("AUC")),
        ("Recall@20|items=cold", Figure("Recall", 20, "items=cold")),
        ("Recall@20|genre=Film@Noir|x", Figure("Recall", 20, "genre=Film@Noir|x")),
        ("@10", Figure("@10")),
        ("mail@home", Figure("mail@home")),
    ],
)
def test_a_figure_is_its_text(text: str, figure: Figure) -> None:
    assert Figure.parse(text) == figure and str(figure) == text


def test_the_metric_knows_what_is_better() -> None:
    assert Figure.parse("NDCG@10").improves(0.2, 0.1)
    assert Figure.parse("LogLoss").improves(0.1, 0.2)
    assert not Figure.parse("LogLoss").improves(0.2, 0.1)
    for name in ("NDCG@10", "LogLoss"):
        assert not Figure.parse(name).improves(0.1, 0.1)
        assert not Figure.parse(name).improves(math.nan, 0.1)


def test_few_figures_are_looked_at_first() -> None:
    measured = [f"{n}@{k}" for k in (5, 10) for n in ("Recall", "MAP", "NDCG", "Coverage")]
    assert looked_at_first(measured) == ["Recall@10", "NDCG@10", "Coverage@10"]
    assert looked_at_first(measured, "MAP@5", "HR@5")[0] == "MAP@5"
    assert looked_at_first(["NDCG@5", "NDCG@3"]) == ["NDCG@5"]
    assert looked_at_first(["AUC", "LogLoss"]) == ["AUC", "LogLoss"]
    assert looked_at_first([]) == []


def test_ten_is_shown_first_where_it_was_measured() -> None:
    figures = map(Figure.parse, ("NDCG@50", "NDCG@10", "Recall@10", "AUC"))
    assert cut_offs(figures) == [10, 50]
    assert first_cut([50, 10, 5]) == 10 and first_cut([5, 1]) == 5
