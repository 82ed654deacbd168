"""Which events of a history a step trains on, and how often each item is one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from conformance import fresh, small
from planted import Shape
from recsys.data.block import Jagged
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.objectives.targets import draw_targets, targets_of_sequences

HISTORY = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0, 0], [2, 5, 0, 0, 0, 0, 0, 0, 0], [3] + [0] * 8])


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize(("count", "expected"), [(2, [2, 1, 0]), (9, [3, 1, 0])])
def test_padding_takes_no_target_from_those_that_there_are(
    step: int, count: int, expected: list[int]
) -> None:
    """As many as are asked for, or all but the first, whichever items they are."""
    users, ends = draw_targets(HISTORY, count, longest=9, seed=0, step=step)
    assert users.bincount(minlength=3).tolist() == expected
    assert (HISTORY[users, ends] != 0).all() and (ends > 0).all()


def test_the_second_half_is_drawn_alike_and_nothing_before_it() -> None:
    """Of 7, 4, 3, 2 and 1 events those from 3, 1, 1, 1 and none on; and none of padding."""
    lengths = [7, 4, 3, 2, 1]
    history = torch.zeros(5, 9, dtype=torch.int64)
    for row, length in enumerate(lengths):
        history[row, :length] = torch.arange(1, length + 1) + row
    drawn = torch.zeros(5, 9)
    for step in range(400):
        users, ends = draw_targets(history, 1, longest=9, seed=0, step=step, second_half=True)
        assert users.tolist() == [0, 1, 2, 3]
        drawn[users, ends] += 1
    for row, (first, length) in enumerate([(3, 7), (1, 4), (1, 3), (1, 2), (1, 1)]):
        possible = range(first, length)
        assert drawn[row].nonzero().flatten().tolist() == list(possible)
        for place in possible:
            assert float(drawn[row, place]) == pytest.approx(400 / len(possible), rel=0.2)
    every = draw_targets(history, 9, longest=9, seed=0, step=0, second_half=True)
    assert every[0].bincount().tolist() == [4, 3, 2, 1]


class Sequences:
    """Two training sequences, 2 4 3 and 3 1, of the items up to 5."""

    num_items = 6

    def training_lists(self, name: str, longest: int) -> Iterator[Jagged]:
        assert (name, longest) == ("history", 3)
        yield Jagged(torch.tensor([2, 4, 3, 3, 1]), torch.tensor([0, 3, 5]))


@pytest.mark.parametrize(
    ("count", "expected"),
    [(None, [0, 1, 0, 1, 1, 0]), (1, [0, 1, 0, 0.5, 0.5, 0]), (2, [0, 1, 0, 1, 1, 0])],
)
def test_each_event_but_the_first_is_a_target_as_often_as_it_is_drawn(
    count: int | None, expected: list[float]
) -> None:
    counts = targets_of_sequences(cast(Examples, Sequences()), 3, count)
    assert counts.tolist() == expected


@pytest.mark.parametrize("name", ["two_tower", "sasrec", "multi_interest", "ada_retrieval"])
def test_in_batch_negatives_are_expected_as_often_as_they_are_targets(
    name: str, planted: dict[Shape, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of histories of up to twelve events the last four are read, of which three can be targets."""
    options: dict[str, Any] = {"negative_sampling": "in_batch", "log_q": True, "max_length": 3}
    if name == "ada_retrieval":
        options = {"backbone": {"width": 16, **options}}
    if name in ("multi_interest", "ada_retrieval"):
        options["targets_per_user"] = 1
    shape: Shape = "events" if name == "two_tower" else "sequences"
    examples = planted[shape]
    model = fresh(small(name, **options), examples)
    counts = torch.zeros(examples.num_items)

    class Drawn(Exception):
        pass

    def draw(targets: Tensor, *_: object) -> None:
        counts.add_(targets.bincount(minlength=len(counts)))
        raise Drawn

    monkeypatch.setattr(model.objective, "draw", draw)
    config = ReaderConfig(batch_size=4096)
    batch = next(iter(model.training_reader(examples, config, seed=0, rank=0, world=1)))
    for step in range(200 if "targets_per_user" in options else 1):
        with pytest.raises(Drawn):
            model(batch, step)
    share = counts.double() / counts.sum()
    assert float((share - model.objective.expected.probability).abs().sum()) < 0.05
    if shape == "sequences":
        events = examples.train_events / examples.train_events.sum()
        assert float((share - events).abs().sum()) > 0.15
