"""What trained retrievers learn from: negatives and a loss, the same options for all of them.

P targets, n negatives, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.examples import Examples
from recsys.distributed import current_group
from recsys.embeddings.hashing import hash_rows, salt_of
from recsys.lists.pairs import Pairs, contains
from recsys.objectives.loss_kinds import GBCE, AnyLoss, Compared, Softmax
from recsys.objectives.losses import Sets
from recsys.objectives.negatives import NegativeSampler
from recsys.options import ModelConfig, changed

_ASSIGNMENT = salt_of("negatives")


class ObjectiveConfig(ModelConfig):
    """Options of the loss."""

    width: int = Field(64, ge=2, description="D: width of item and user vectors.")
    loss: AnyLoss = Field(
        Softmax(), description="What is minimised; by its name, or as a table with its options."
    )
    negatives: int = Field(
        256,
        ge=0,
        description="Negatives of a target; 0 takes every known item, which makes it the loss "
        "over the whole catalogue.",
    )
    negative_sets: int = Field(
        32,
        ge=1,
        description="Sets of so many negatives that are drawn per step. Every target is assigned "
        "to one and shares it with the others there: few sets are fast, many let more items learn "
        "from a step. A batch has thousands of targets: with one set, few items learn.",
    )
    negative_sampling: Literal["uniform", "popularity", "mixed", "in_batch"] = Field(
        "uniform",
        description="Where from: uniform draws all known items, even without training events; "
        "mixed is half uniform, half by popularity; in_batch takes the targets of the whole batch.",
    )
    hard_negatives: int = Field(
        0,
        ge=0,
        description="Besides: of each user in the batch, the items that score best by now and are "
        "not in the history. Each step then computes all item vectors.",
    )
    log_q: bool = Field(False, description="Correct the logits for how often items are drawn.")
    temperature: float = Field(
        0.05, gt=0, description="What scores are divided by in the loss; small ones sharpen it."
    )
    normalise: bool = Field(True, description="Cosine similarity instead of inner product.")
    matryoshka: tuple[int, ...] = Field(
        (),
        description="Widths whose prefixes of the vectors are good vectors, too; each adds a loss "
        "of its own.",
    )
    matryoshka_weights: tuple[float, ...] = Field(
        (),
        description="Of each such loss, where that of the whole vectors weighs 1; by default 1. "
        "The less they weigh, the less of the whole vectors' quality they cost.",
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "width": {"choices": [32, 64, 128]},
        "temperature": {"low": 0.02, "high": 0.2, "log": True},
        "negatives": {"choices": [0, 128, 512]},
        "negative_sampling": {"choices": ["uniform", "popularity", "mixed"]},
    }

    @model_validator(mode="after")
    def _check(self) -> Self:
        ignored: list[str] = []
        if self.negative_sampling == "in_batch":
            ignored, why = changed(self, "negatives", "negative_sets"), "takes the batch's targets"
        elif self.negatives == 0:
            ignored, why = changed(self, "negative_sets"), "takes every item"
        if ignored:
            given = f"negative_sampling = {self.negative_sampling!r}, negatives = {self.negatives}"
            raise ValueError(f"{given} {why}: {' and '.join(ignored)} would be ignored")
        if self.log_q and (
            not isinstance(self.loss, Softmax) or not self.draws or self.hard_negatives
        ):
            raise ValueError(
                "log_q corrects a softmax over drawn negatives: with it choose loss = 'softmax', "
                "negatives > 0 and hard_negatives = 0"
            )
        drawn_otherwise = self.negative_sampling != "uniform" or self.hard_negatives > 0
        if isinstance(self.loss, GBCE) and self.loss.calibration and self.draws and drawn_otherwise:
            raise ValueError(
                "gbce undoes what uniform draws overstate: with it choose negative_sampling = "
                "'uniform' and hard_negatives = 0, or loss.calibration = 0, which is bce"
            )
        if list(self.matryoshka) != sorted(set(self.matryoshka)) or any(
            not 1 <= width < self.width for width in self.matryoshka
        ):
            raise ValueError(f"matryoshka lists ascending widths below width = {self.width}")
        weights, widths = self.matryoshka_weights, self.matryoshka
        if weights and (len(weights) != len(widths) or min(weights) <= 0):
            raise ValueError(
                f"matryoshka_weights has a weight above 0 for each of the {len(widths)} widths in "
                "matryoshka, or none"
            )
        return self

    @property
    def widths(self) -> tuple[tuple[int | None, float], ...]:
        """Every width that has a loss, None for the whole vectors, and what it weighs."""
        weights = self.matryoshka_weights or (1.0,) * len(self.matryoshka)
        return (*zip(self.matryoshka, weights, strict=True), (None, 1.0))

    @property
    def draws(self) -> bool:
        """Whether negatives are a sample."""
        return self.negatives > 0 or self.negative_sampling == "in_batch"


class Drawn(NamedTuple):
    """Item rows [n] of all sets, one behind the other, how many of them each set has, distinct and
    ascending, and how many draws each came from."""

    ids: Tensor
    sizes: tuple[int, ...]
    draws: int

    @classmethod
    def of(cls, sets: list[Tensor], draws: int) -> Drawn:
        """What was drawn for each set."""
        return cls(torch.cat(sets), tuple(len(ids) for ids in sets), draws)


Companion = Callable[
    [Callable[[Tensor, Tensor, Tensor], Tensor], Tensor, Tensor, Tensor, Tensor, Tensor], Tensor
]
"""Makes losses [P] of the objective's own (of queries, positives and negatives), unit queries,
positives and negatives, `targets` and the rows of the negatives: see `recsys.compatible`."""


class Objective(nn.Module):
    """Draws negatives, and turns vectors into losses; a `companion` may make others of them."""

    companion: Companion | None = None

    def __init__(
        self,
        config: ObjectiveConfig,
        examples: Examples,
        seed: int,
        targets: Callable[[], Tensor] | None = None,
    ) -> None:
        """`targets` counts how often each item [N] is a target in an epoch, where that is not as
        often as it has training events."""
        super().__init__()
        self.config = config
        events, kind = examples.train_events, config.negative_sampling
        if kind == "in_batch":
            self.sampler = NegativeSampler(events, "popularity", power=1.0, seed=seed)
        else:
            self.sampler = NegativeSampler(
                events, kind, known_events=examples.known_events, seed=seed
            )
        self.expected = self.sampler  # of whose draws `log_q` corrects for
        if kind == "in_batch" and config.log_q and targets is not None:
            self.expected = NegativeSampler(targets(), "popularity", power=1.0)

    def unit(self, vectors: Tensor) -> Tensor:
        """Vectors [..., D] as they are compared."""
        return F.normalize(vectors, dim=-1) if self.config.normalise else vectors

    def draw(self, targets: Tensor, step: int, hard: Callable[[], Tensor] | None = None) -> Drawn:
        """The negatives of a step, the same on every process; `hard` names rows to add."""
        config = self.config
        draws = config.negatives
        if config.negative_sampling == "in_batch":
            everywhere = current_group().concat(targets.contiguous())
            sets, draws = [torch.unique(everywhere)], len(everywhere)
        elif config.negatives:
            sets = self.sampler.sample(config.negatives, step, config.negative_sets)
        else:
            sets = [self.sampler.everything()]
        if config.hard_negatives and hard is not None:
            rows = current_group().concat(hard().flatten().contiguous())
            sets = [torch.unique(torch.cat([ids, rows.to(ids)])) for ids in sets]
        return Drawn.of(sets, draws)

    def hardest(self, users: Tensor, history: Tensor, items: Tensor, rows: Tensor) -> Tensor:
        """Rows [B, hard_negatives] of the best-scoring items that are not in the history.

        Args:
            users: [B, K, D].
            history: [B, T].
            items: vectors [N, D] of `rows` [N], ascending.
        """
        scores = torch.einsum("bkd,nd->bkn", users, items).amax(1)
        scores.masked_fill_(contains(history, rows.expand(len(history), -1)), float("-inf"))
        return rows[scores.topk(min(self.config.hard_negatives, len(rows))).indices]

    def forward(
        self,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        drawn: Drawn,
        own: Pairs | None = None,
    ) -> Tensor:
        """Losses [P], of the `companion` where there is one; arguments as of `compare`."""
        if self.companion is None:
            return self.compare(queries, positives, negatives, targets, drawn, own)

        def losses(queries: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
            return self.compare(queries, positives, negatives, targets, drawn, own)

        queries, positives, negatives = (
            self.unit(rows.float()) for rows in (queries, positives, negatives)
        )
        return self.companion(losses, queries, positives, negatives, targets, drawn.ids)

    def compare(
        self,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        drawn: Drawn,
        own: Pairs | None = None,
    ) -> Tensor:
        """Losses [P]: of the whole vectors, and of each nested width m times its weight, whose
        prefixes are compared by themselves (Kusupati et al., "Matryoshka representation learning",
        NeurIPS 2022), at a temperature of `temperature sqrt(D / m)` where they are normalised:
        cosines of m numbers spread as `1 / sqrt(m)`. In float32 whatever the vectors are: a logit
        of 20 has a digit and a half in bf16.

        Args:
            queries: [P, D], as the model makes them.
            positives: [P, D] of `targets` [P].
            negatives: [n, D] of `drawn`.
            own: pairs of a row and an item that is no negative of it, besides its target.
        """
        # by the target alone: the same set whichever process a row is on
        assigned = hash_rows(targets, _ASSIGNMENT, len(drawn.sizes))
        order = assigned.argsort(stable=True)
        counts = assigned.bincount(minlength=len(drawn.sizes)).tolist()
        targets = targets.index_select(0, order)
        queries, positives = (rows.float().index_select(0, order) for rows in (queries, positives))
        negatives = negatives.float()
        sets, place = Sets(tuple(counts), drawn.sizes), order.argsort()
        if own is not None and len(own.items):
            own = own.where(_among(drawn.ids, own.items))  # far fewer are left to search for
            own = Pairs(place[own.users], own.items)
        total = queries.new_zeros(())
        with torch.autocast(queries.device.type, enabled=False):
            for width, share in self.config.widths:
                user, positive, negative = (
                    self.unit(vectors[:, :width]) for vectors in (queries, positives, negatives)
                )
                temperature = self.config.temperature
                if self.config.normalise:
                    temperature *= (queries.shape[1] / user.shape[1]) ** 0.5
                losses = self._losses(
                    user / temperature, positive, negative, targets, drawn, sets, own
                )
                total = total + share * losses
        return total.index_select(0, place)

    def _losses(
        self,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        drawn: Drawn,
        sets: Sets,
        own: Pairs | None,
    ) -> Tensor:
        log_q = None
        if self.config.log_q:
            expected, draws = self.expected.log_expected, drawn.draws
            log_q = expected(targets, draws), expected(drawn.ids, draws)
        items = self.sampler.items
        compared = Compared(
            queries, positives, negatives, targets, drawn.ids, sets, items, own, log_q
        )
        return self.config.loss.of(compared)


def _among(ids: Tensor, items: Tensor) -> Tensor:
    """Whether each of `items` is one of the rows `ids`."""
    drawn = torch.zeros(int(max(ids.max(), items.max())) + 1, dtype=torch.bool, device=ids.device)
    drawn[ids] = True
    return drawn[items]
