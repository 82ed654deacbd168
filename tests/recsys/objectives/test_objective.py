"""What retrievers learn from: every option against a loss written out row by row."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from conformance import fresh, small
from planted import Shape
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.objectives.objective import Drawn, Objective, ObjectiveConfig

P, D = 6, 8


def objective(examples: Examples, **options: object) -> Objective:
    defaults: dict[str, object] = {"name": "sasrec", "width": D, "temperature": 0.5}
    if options.get("negative_sampling") != "in_batch":
        defaults["negatives"] = 12
        if options.get("negatives") != 0:
            defaults["negative_sets"] = 1
    return Objective(ObjectiveConfig(**{**defaults, **options}), examples, seed=3)  # type: ignore[arg-type]


@pytest.fixture
def examples(planted: dict[Shape, Examples]) -> Examples:
    return planted["sequences"]


def vectors(count: int, seed: int) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sampling", ["uniform", "popularity", "mixed", "in_batch"])
@pytest.mark.parametrize("log_q", [False, True])
@pytest.mark.parametrize("widths", [(), (2, 4)])
def test_the_softmax_is_its_formula(
    sampling: str, log_q: bool, widths: tuple[int, ...], examples: Examples
) -> None:
    weights = (0.3, 0.5)[: len(widths)]
    part = objective(
        examples,
        negative_sampling=sampling,
        log_q=log_q,
        matryoshka=widths,
        matryoshka_weights=weights,
    )
    targets = torch.tensor([1, 2, 2, 9, 30, 31])
    drawn = part.draw(targets, 5)
    users, own, others = vectors(P, 0), vectors(P, 1), vectors(len(drawn.ids), 2)
    found = part(users, own, others, targets, drawn)
    events = examples.train_events.double()
    shares = {"uniform": (events > 0).double(), "popularity": events**0.75, "in_batch": events}
    chances = {name: share / share.sum() for name, share in shares.items()}
    chances["mixed"] = (chances["uniform"] + chances["popularity"]) / 2
    chance = 1 - (1 - chances[sampling]) ** (len(targets) if sampling == "in_batch" else 12)
    for row, target in enumerate(targets):
        expected = torch.zeros(())
        for width, share in zip((*widths, D), (*weights, 1.0), strict=True):
            user, mine, theirs = (
                F.normalize(v[..., :width], dim=-1) for v in (users[row], own[row], others)
            )
            kept = drawn.ids != target
            logits = torch.cat([(user @ mine).view(1), theirs[kept] @ user])
            logits = logits / (0.5 * (D / width) ** 0.5)
            if log_q:
                rows = torch.cat([target.view(1), drawn.ids[kept]])
                logits = logits - chance[rows].log().float()
            expected = expected - share * logits.log_softmax(0)[0]
        torch.testing.assert_close(found[row], expected)


@pytest.mark.parametrize("loss", ["softmax", "gbce", "bce", "bpr"])
def test_each_target_meets_the_negatives_of_one_set(loss: str, examples: Examples) -> None:
    """The loss of a row is that against its set alone, and rows keep their order."""
    part = objective(examples, loss=loss, negative_sets=3, matryoshka=(4,))
    alone = objective(examples, loss=loss, matryoshka=(4,))
    targets = torch.arange(1, 31)
    drawn = part.draw(targets, 5)
    assert len(drawn.sizes) == 3 and sum(drawn.sizes) == len(drawn.ids)
    users, own, others = (torch.randn(n, D) for n in (30, 30, len(drawn.ids)))
    found = part(users, own, others, targets, drawn)
    sets = list(zip(others.split(drawn.sizes), drawn.ids.split(drawn.sizes), strict=True))
    per_set = torch.stack(
        [alone(users, own, one, targets, Drawn.of([ids], drawn.draws)) for one, ids in sets]
    )
    place = (per_set - found).abs().argmin(0)
    torch.testing.assert_close(found, per_set.gather(0, place.unsqueeze(0))[0])
    assert set(place.tolist()) == {0, 1, 2}
    # whichever process a row is on, and if there is none: by the target alone
    assert len(part(users[:0], own[:0], others, targets[:0], drawn)) == 0
    some = torch.tensor([7, 3, 20])
    again = part(users[some], own[some], others, targets[some], drawn)
    torch.testing.assert_close(again, found[some])


@pytest.mark.parametrize("loss", ["softmax", "gbce", "bce", "bpr"])
def test_narrow_vectors_lose_nothing_more_in_the_loss(loss: str, examples: Examples) -> None:
    """And their losses can be counted: bf16 rounds 3001 targets to 3008."""
    part = objective(examples, loss=loss, temperature=0.05)
    targets = torch.arange(1, P + 1)
    drawn = part.draw(targets, 0)
    narrow = [vectors(n, seed).bfloat16() for seed, n in enumerate((P, P, len(drawn.ids)))]
    with torch.autocast("cpu", torch.bfloat16):
        found = part(*narrow, targets, drawn)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, part(*(v.float() for v in narrow), targets, drawn))


def test_all_numbers_count_of_vectors_wider_than_the_embeddings(examples: Examples) -> None:
    """A sheaf's layers lie side by side."""
    part = objective(examples, normalise=False)
    targets = torch.arange(1, P + 1)
    drawn = part.draw(targets, 0)
    users, own, others = (torch.randn(n, 2 * D) for n in (P, P, len(drawn.ids)))
    whole = part(users, own, others, targets, drawn)
    shorter = part(users[:, :D], own[:, :D], others[:, :D], targets, drawn)
    assert not torch.isclose(whole, shorter).any()


def test_in_batch_negatives_are_the_distinct_targets(examples: Examples) -> None:
    drawn = objective(examples, negative_sampling="in_batch").draw(torch.tensor([9, 2, 9, 4]), 0)
    assert drawn.ids.tolist() == [2, 4, 9] and drawn.draws == 4


def test_the_hardest_score_best_and_were_never_had(examples: Examples) -> None:
    part = objective(examples, hard_negatives=2)
    rows = torch.tensor([1, 4, 5, 8])
    items = torch.eye(4)
    users = torch.tensor([[[4.0, 3.0, 2.0, 1.0]], [[1.0, 2.0, 3.0, 4.0]]])
    history = torch.tensor([[4, 0], [8, 1]])
    assert part.hardest(users, history, items, rows).tolist() == [[1, 5], [5, 4]]


@pytest.mark.parametrize("name", ["sasrec", "hstu", "multi_interest"])
def test_hard_negatives_are_drawn_by_the_weights_of_now(name: str, examples: Examples) -> None:
    """A loss over the whole catalogue and one with hard negatives only; nothing is left changed."""
    model = fresh(small(name, negatives=1, hard_negatives=3), examples).train()
    reader = model.training_reader(examples, ReaderConfig(batch_size=8), seed=0, rank=0, world=1)
    batch = next(iter(reader))
    before = torch.get_rng_state()
    easy = fresh(small(name, negatives=1), examples).train()(batch, 0)
    torch.set_rng_state(before)
    hard = model(batch, 0)
    assert hard.total > easy.total and model.training


def test_losses_of_other_kinds_fall_as_the_target_rises(examples: Examples) -> None:
    targets = torch.arange(1, P + 1)
    for loss in ("bce", "gbce", "bpr", "softmax"):
        part = objective(examples, loss=loss)
        drawn = part.draw(targets, 0)
        users, others = vectors(P, 0), vectors(len(drawn.ids), 2)
        far, near = (part(users, sign * users, others, targets, drawn) for sign in (-1, 1))
        assert (near < far).all()


def test_gbce_is_bce_over_the_whole_catalogue(examples: Examples) -> None:
    """With every item a negative there is nothing to undo."""
    targets = torch.arange(1, P + 1)
    found = []
    for loss in ("bce", "gbce"):
        part = objective(examples, loss=loss, negatives=0)
        drawn = part.draw(targets, 0)
        found.append(part(vectors(P, 0), vectors(P, 1), vectors(len(drawn.ids), 2), targets, drawn))
    torch.testing.assert_close(found[0], found[1], rtol=0.03, atol=0)


def test_nested_widths_from_1_on_weigh_as_the_whole_where_nothing_is_said(
    examples: Examples,
) -> None:
    targets = torch.arange(1, P + 1)
    found = []
    for weights in ((), (1.0, 1.0)):
        part = objective(examples, matryoshka=(1, 4), matryoshka_weights=weights)
        drawn = part.draw(targets, 0)
        found.append(part(vectors(P, 0), vectors(P, 1), vectors(len(drawn.ids), 2), targets, drawn))
    assert torch.equal(*found)


@pytest.mark.parametrize("calibration", [None, 0.0, 0.5])
def test_gbce_is_its_formula(calibration: float | None, examples: Examples) -> None:
    """`-(b log s(+) + sum_j log(1 - s(j))) / (n + 1)`, `b = 1 - c (1 - n / (items - 1))`, n the
    distinct ones of 12 draws from the known items, and c .75 unless it is set."""
    options = {} if calibration is None else {"calibration": calibration}
    part = objective(examples, loss={"name": "gbce", **options}, normalise=False, temperature=2.0)
    targets = torch.arange(1, P + 1)
    drawn = part.draw(targets, 5)
    users, own, others = vectors(P, 0), vectors(P, 1), vectors(len(drawn.ids), 2)
    found = part(users, own, others, targets, drawn)
    items = int((examples.known_events > 0).sum())
    power = 1 - (0.75 if calibration is None else calibration) * (1 - len(drawn.ids) / (items - 1))
    for row, target in enumerate(targets):
        kept = drawn.ids != target
        right = torch.sigmoid(users[row] @ own[row] / 2).log()
        wrong = (1 - torch.sigmoid(others[kept] @ users[row] / 2)).log()
        expected = -(power * right + wrong.sum()) / (int(kept.sum()) + 1)
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"log_q": True, "loss": "bpr"}, "log_q corrects a softmax"),
        ({"log_q": True, "negatives": 0}, "log_q corrects a softmax"),
        ({"log_q": True, "hard_negatives": 1}, "log_q corrects a softmax"),
        ({"negative_sampling": "in_batch", "negatives": 9}, "negatives would be ignored"),
        ({"negative_sampling": "in_batch", "negative_sets": 9}, "negative_sets would be ignored"),
        ({"negatives": 0, "negative_sets": 9}, "takes every item: negative_sets would be ignored"),
        ({"loss": {"name": "bce", "calibration": 0.5}}, "calibration"),
        ({"loss": "gbce", "negative_sampling": "mixed"}, "undoes what uniform draws overstate"),
        ({"loss": "gbce", "negative_sampling": "in_batch"}, "undoes what uniform draws overstate"),
        ({"loss": "gbce", "hard_negatives": 1}, "undoes what uniform draws overstate"),
        ({"hard_negatives": -1}, "greater than or equal to 0"),
        ({"matryoshka": (0,)}, "ascending widths below width = 8"),
        ({"matryoshka": (4, 2)}, "ascending widths below width = 8"),
        ({"matryoshka": (4,), "matryoshka_weights": (1, 1)}, "for each of the 1 widths"),
        ({"matryoshka": (4,), "matryoshka_weights": (0,)}, "a weight above 0"),
        ({"matryoshka": (8,)}, "ascending widths below width = 8"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: dict[str, object], reason: str, examples: Examples
) -> None:
    with pytest.raises(ValidationError, match=reason):
        objective(examples, **options)
