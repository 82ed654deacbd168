"""The stages of a funnel, on numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recsys.lists.funnel import Diversity, Find, Score, Stage, funnel, fuse

NONE = float("-inf")


def finds(*lists: list[int]) -> Find:
    """A generator that finds these items, with scores that nobody compares."""
    items = torch.tensor(lists)
    scores = torch.arange(items.shape[1], 0, -1).float().expand(items.shape)
    return lambda: (items, scores.masked_fill(items < 0, NONE))


def logits(*of_items: float) -> Score:
    """A ranker that gives each item the same logit for everyone."""
    table = torch.tensor(of_items)
    return lambda items: table[items.clamp(min=0)]


def run(*generators: Find, k: int = 10, **options: object) -> dict[str, Stage]:
    named = {f"g{number}": find for number, find in enumerate(generators)}
    return {stage.name: stage for stage in funnel(named, k, **options)}  # type: ignore[arg-type]


def lists(stage: Stage) -> list[list[int]]:
    return [[item for item in row if item >= 0] for row in stage.items.tolist()]


def test_lists_are_fused_by_their_ranks_without_repeats() -> None:
    items, scores = fuse([torch.tensor([[3, 1, -1]]), torch.tensor([[1, 0, 4]])])
    # 1 is second and first; 3 is first once, 0 second, 4 third
    assert items.tolist() == [[1, 3, 0, 4]]
    expected = [1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63]
    assert scores[0].tolist() == pytest.approx(expected)


def test_equal_ranks_are_ordered_by_the_lower_item() -> None:
    items, _ = fuse([torch.tensor([[5, 2]]), torch.tensor([[4, 3]])])
    assert items.tolist() == [[4, 5, 2, 3]]


def test_users_with_fewer_items_end_sooner() -> None:
    items, scores = fuse([torch.tensor([[0, 1], [2, -1], [-1, -1]])])
    assert items.tolist() == [[0, 1], [2, -1], [-1, -1]]
    assert scores[1, 1] == NONE and scores[2, 0] == NONE


def test_a_coarse_ranker_keeps_and_a_fine_one_orders() -> None:
    """The fine ranker loves item 4, which the coarse one has dropped."""
    stages = run(
        finds([0, 1, 2], [3, 1, -1]),
        finds([3, 4, 5], [1, -1, -1]),
        coarse=logits(0.0, 3, 2, 1, -1, -2),
        keep=3,
        fine=logits(0.0, -1, 2, 1, 9, 9),
    )
    assert list(stages) == ["g0", "g1", "candidates", "coarse", "fine"]
    assert [sorted(row) for row in lists(stages["candidates"])] == [[0, 1, 2, 3, 4, 5], [1, 3]]
    assert lists(stages["coarse"]) == [[1, 2, 3], [1, 3]]
    assert lists(stages["fine"]) == [[2, 3, 1], [3, 1]]
    assert stages["fine"].scores[0].tolist() == pytest.approx(
        [1 / (1 + math.exp(-x)) for x in (2, 1, -1)]
    )
    assert [stage.shown for stage in stages.values()] == [False] * 4 + [True]


def test_items_that_score_alike_keep_the_order_of_the_stage_before() -> None:
    stages = run(finds([7, 2, 5]), coarse=logits(*[0.0] * 8), keep=2, fine=logits(*[1.0] * 8))
    assert lists(stages["coarse"]) == [[7, 2]] == lists(stages["fine"])


def test_without_a_coarse_ranker_the_fine_one_sees_all() -> None:
    stages = run(finds([0, 1, 2]), finds([3, 4, 5]), fine=logits(0.0, 1, 2, 3, 4, 5))
    assert lists(stages["fine"]) == [[5, 4, 3, 2, 1, 0]]


def test_without_rankers_the_generators_ranks_make_the_list() -> None:
    stages = run(finds([4, 2]), finds([2, 0]))
    assert lists(stages["list"]) == [[2, 4, 0]] and stages["list"].shown


def test_worth_orders_by_expected_money() -> None:
    """Probabilities .5 and .25: at worths of 1 and 3 the less likely one comes first; what loses
    money comes last, behind what is worth nothing."""
    p = logits(0.0, -math.log(3), 0.0, 0.0)
    by_chance = run(finds([1, 0, 3, 2]), fine=p)
    assert lists(by_chance["fine"]) == [[0, 3, 2, 1]]
    by_worth = run(finds([1, 0, 3, 2]), fine=p, worth=torch.tensor([1.0, 3.0, -1.0, 0.0]))
    assert lists(by_worth["fine"]) == [[1, 0, 3, 2]]
    assert by_worth["fine"].scores[0].tolist() == pytest.approx([0.75, 0.5, 0.0, -0.5])


def test_the_order_of_candidates_counts_beside_the_fine_ranker() -> None:
    """Candidates 2, 0, 1 of equal logits, of which the coarse ranker drops the first: places 1 and
    2 divide odds of 6 by 6 and 7; by their square the logit of 1 has to be higher by log(49 / 36)
    for it to come first."""
    options = {"coarse": logits(1.0, 2.0, 0.0), "keep": 2}
    for more, expected in ((0.3, [0, 1]), (0.32, [1, 0])):
        fine = logits(math.log(6), math.log(6) + more, 9.0)
        stages = run(finds([2, 0, 1]), **options, fine=fine, place_weight=2.0)
        assert lists(stages["fine"]) == [expected]
    fine = logits(*[math.log(6)] * 3)
    scores = run(finds([2, 0, 1]), **options, fine=fine, place_weight=1.0)["fine"].scores
    assert scores[0].tolist() == pytest.approx([1 / 2, 6 / 13])
    whole = run(finds([2, 0, 1], [0, -1, -1]), fine=fine, place_weight=1.0)["fine"]
    assert lists(whole) == [[2, 0, 1], [0]]
    assert whole.scores[0].tolist() == pytest.approx([6 / 11, 6 / 12, 6 / 13])


def test_a_last_step_makes_lists_diverse() -> None:
    """0 and 1 are of one category: 2 comes between them, which is worth the score it lacks."""
    diverse = Diversity(torch.tensor([1, 1, 2]), 0.5)
    stages = run(finds([0, 1, 2]), k=2, fine=logits(2.0, 1.9, 0.0), diversity=diverse)
    assert lists(stages["fine"]) == [[0, 1, 2]]
    assert lists(stages["diversity"]) == [[0, 2]]
    assert list(stages)[-1] == "diversity"


def test_stages_are_done_when_they_are_asked_for() -> None:
    """So that whoever looks on can take their time."""
    asked: list[str] = []

    def find() -> tuple[Tensor, Tensor]:
        asked.append("g")
        return torch.tensor([[0]]), torch.tensor([[1.0]])

    def fine(items: Tensor) -> Tensor:
        asked.append("fine")
        return torch.zeros(items.shape)

    stages = funnel({"g": find}, 1, fine=fine)
    assert next(stages).name == "g" and asked == ["g"]
    assert [stage.name for stage in stages] == ["candidates", "fine"] and asked == ["g", "fine"]
