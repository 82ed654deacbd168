"""Every model moves to another device with all that it has: shown by one that only pretends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conformance import (
    TRAINED,
    batch_from,
    fresh,
    measure,
    predict,
    request_table,
    rows_of,
    shape_of,
    small,
)
from feature_store.columns import HISTORY
from planted import Shape
from pretended_gpu import CUDA, backward, move, pretended_gpu
from recsys import rankers
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.distributed import Group
from recsys.lists.pairs import Pairs
from recsys.rankers.base import Ranker

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in (*TRAINED, *rankers.RANKERS)},
    "gated": ("sasrec", {"block": "gated"}),
    "whole catalogue": ("sasrec", {"negatives": 0}),
    "hard negatives": ("sasrec", {"hard_negatives": 3}),
    "popular negatives": ("sasrec", {"negative_sampling": "mixed", "log_q": True}),
    "gbce": ("sasrec", {"loss": "gbce", "negative_sampling": "uniform"}),
    "bpr": ("hstu", {"loss": "bpr"}),
    **{
        kind: ("multi_interest", {"extractor": {"name": kind}})
        for kind in ("mind", "comirec_dr", "comirec_sa", "hcn")
    },
    "quota": ("multi_interest", {"merge": "quota"}),
    "sheaf": ("graph", {"propagation": {"name": "sheaf"}}),
    "hidden ids": ("two_tower", {"id_dropout": 0.5}),
    "nested": ("sasrec", {"matryoshka": (4,)}),
}


def test_what_is_forgotten_is_refused_as_on_a_gpu() -> None:
    with pretended_gpu():
        moved = torch.arange(3).to("cuda")
        assert moved.is_cuda and moved.device == CUDA == (moved + 1).device
        assert not moved.cpu().is_cuda and not torch.ones(2).is_cuda
        assert torch.zeros(3, device="cuda").is_cuda and torch.zeros_like(moved).is_cuda
        assert (moved * torch.tensor(2)).tolist() == [0, 2, 4]
        for mix in (
            lambda: moved + torch.ones(3),
            lambda: torch.cat([moved, torch.ones(3)]),
            lambda: torch.nn.functional.embedding(moved, torch.ones(3, 2)),
            lambda: torch.searchsorted(torch.arange(4), moved),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mix()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(moved.numpy())


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_model_learns_and_answers_on_another_device(
    variant: str, planted: dict[Shape, Examples]
) -> None:
    """As on the CPU, from weights and a batch that were moved."""
    name, options = VARIANTS[variant]
    examples = planted[shape_of(name)]
    here, there = (fresh(small(name, **options), examples) for _ in range(2))
    reader = here.training_reader(examples, ReaderConfig(batch_size=16), seed=0, rank=0, world=1)
    batch = next(iter(reader))
    with pretended_gpu() as device:
        move(there)
        torch.manual_seed(1)
        loss = there(batch.to(device), 0)
        assert loss.total.is_cuda
        backward(loss.total)
    torch.manual_seed(1)
    expected = here(batch, 0)
    torch.testing.assert_close(loss.total.detach().cpu(), expected.total.detach())
    moving = [weights.grad for weights in there.parameters() if weights.grad is not None]
    assert moving and all(bool(gradient.isfinite().all()) for gradient in moving)
    with pretended_gpu() as device, torch.no_grad():
        there.eval()
        if name in rankers.RANKERS:
            answer = there.predict(batch_from(there, rows_of(there, examples)).to(device))
            figures = predict(there, examples, Group(0, 1, device)).metrics
        else:
            there.prepare(examples.candidates().to(device))
            asked = batch_from(there, request_table(there, examples)).to(device)
            answer = there.retrieve(asked, 5, Pairs.of_padded(asked.padded(HISTORY))).scores
            figures = measure(there, examples, Group(0, 1, device)).metrics
        assert answer.is_cuda
    assert figures == pytest.approx(figures_of(here, examples), abs=1e-6, nan_ok=True)


def figures_of(model: Any, examples: Examples) -> dict[str, float]:
    """Of the test, on the CPU."""
    alone = Group(0, 1, torch.device("cpu"))
    model.eval()
    if isinstance(model, Ranker):
        return predict(model, examples, alone).metrics
    model.prepare(examples.candidates())
    return measure(model, examples, alone).metrics
