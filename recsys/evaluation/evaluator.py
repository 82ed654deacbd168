"""Evaluator: ranks the whole catalogue for every user, and keeps what each user got."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.columns import HISTORY, TARGET, TARGET_PROFIT, TARGET_VALUE
from feature_store.errors import DataError
from feature_store.protocols import AnyProtocol
from recsys.data.batch import Batch
from recsys.distributed import Group
from recsys.evaluation.aggregates import Lists, aggregate
from recsys.evaluation.beyond_accuracy import diversity, novelty, stratified_recall
from recsys.evaluation.funnel import stage_columns
from recsys.evaluation.item_facts import ItemFacts
from recsys.evaluation.metrics import METRICS, Hits
from recsys.evaluation.money import expected_revenue, gmv, price_ndcg, profit
from recsys.evaluation.options import EvaluationConfig
from recsys.figure import Figure
from recsys.lists.pairs import Pairs, contains
from recsys.retrievers.base import Candidates, Retriever

MILLIONTH = 1e-6
SLICED = ("Recall", "NDCG", "MRR")
"""Figures of lists that slices have."""
_RARITY = "rarity"


@dataclass(frozen=True)
class Result:
    """What every user got, and who was left out.

    `users` holds arrays with one row a user: `user` (a vocabulary row), counts of `history` and
    `targets`, `recommended` [U, K] item rows and their `scores`, a column for each figure such
    as `NDCG@10`, and `Recall@10|slice=label` for slices of items, of `SLICED` figures (NaN: no such
    target). With facts,
    `rarity` is what the user weighs in StratifiedRecall, 1 on average; with money, `value` is what
    its targets are worth, and `reachable_profit` the profit in those that bring any. Of retrievers
    of several stages there are the columns of `recsys.evaluation.funnel`. `shorter` holds the lists
    [U, k] of cut-offs below K that are no beginnings of the longest.
    """

    users: dict[str, np.ndarray]
    ks: tuple[int, ...]
    candidates: np.ndarray
    without_history: int
    without_targets: int
    shorter: Mapping[int, np.ndarray] = field(default_factory=dict)

    @property
    def figures(self) -> list[str]:
        """Names of the columns that are averaged over all users."""
        measured = map(Figure.parse, self.users)
        return [str(figure) for figure in measured if figure.k and figure.slice is None]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Means over users, and figures of all lists together."""
        means = {name: _mean(self.users[name]) for name in self.figures}
        return means | aggregate(self.users, self.lists, self.candidates)

    @property
    def lists(self) -> Lists:
        """Item rows at every cut-off."""
        return Lists(self.users["recommended"], self.ks, self.shorter)

    @property
    def per_user(self) -> pa.Table:
        """The same as a table; lists end where their user's did."""
        columns: dict[str, Tensor] = {}
        kept = self.users["recommended"] != 0
        offsets = pa.array(np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32))
        for name, values in self.users.items():
            if values.ndim == 2:
                columns[name] = pa.ListArray.from_arrays(offsets, pa.array(values[kept]))
            else:
                columns[name] = pa.array(values, from_pandas=values.dtype.kind == "f")
        return pa.table(columns)

    def parts(self, users: int) -> Iterator[Result]:
        """The same for some `users` at a time: a table of all of them would be large."""
        for first in range(0, len(self.users["user"]), users):
            part = slice(first, first + users)
            columns = {name: values[part] for name, values in self.users.items()}
            shorter = {k: lists[part] for k, lists in self.shorter.items()}
            yield replace(self, users=columns, shorter=shorter)


class Evaluator:
    """Full ranking under one protocol.

    A target that the user has already seen cannot be recommended when seen items are excluded,
    and is no target; users left without targets are counted and not averaged. Users without a
    history are left out for every retriever alike, or counted for all, as the protocol says. A
    target outside the candidates is a miss.

    With `facts` the figures beyond list accuracy are measured too.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        candidates: Tensor,
        *,
        user: str,
        exclude_seen: bool = True,
        cold_users: str = "leave_out",
        sampled: int | None = None,
        seed: int = 0,
        facts: ItemFacts | None = None,
    ) -> None:
        self.config = config
        self.candidates = candidates
        self.user = user
        self.exclude_seen = exclude_seen
        self.cold_users = cold_users
        self.sampled = sampled
        self.seed = seed
        self.facts = facts

    @classmethod
    def under(
        cls,
        protocol: AnyProtocol,
        config: EvaluationConfig,
        candidates: Tensor,
        *,
        user: str,
        facts: ItemFacts | None = None,
    ) -> Evaluator:
        """The evaluator that a protocol asks for."""
        return cls(
            config,
            candidates,
            user=user,
            exclude_seen=protocol.seen == "exclude",
            cold_users=protocol.cold_users,
            sampled=protocol.sampled_candidates,
            facts=facts,
        )

    def evaluate(self, retriever: Retriever, batches: Iterable[Batch], group: Group) -> Result:
        """Rank for the users of `batches`; every process gets the result over all of them.

        Raises DataError when no user is left to average over.
        """
        training = retriever.training
        retriever.eval()
        retriever.prepare(self.candidates.to(group.device))
        parts = []
        for batch in batches:
            judged = self._judge(retriever, batch.to(group.device))
            parts.append({name: values.cpu().numpy() for name, values in judged.items()})
        retriever.train(training)
        users = _joined(group.gather(_joined(parts)))
        has_history = (users["history"] > 0) | (self.cold_users == "count")
        has_targets = users["targets"] > 0
        kept = has_history & has_targets
        if not kept.any():
            raise DataError(_why_nobody(has_history, has_targets, self.exclude_seen))
        if not kept.all():  # copies are large: one column at a time
            for name in users:
                users[name] = users[name][kept]
        shorter = {k: users.pop(_list_of(k)) for k in self.config.ks if _list_of(k) in users}
        return Result(
            users=_weighted(users),
            ks=self.config.ks,
            candidates=self.candidates.cpu().numpy(),
            without_history=int((~has_history).sum()),
            without_targets=int((has_history & ~has_targets).sum()),
            shorter=shorter,
        )

    def _judge(self, retriever: Retriever, batch: Batch) -> dict[str, Tensor]:
        if retriever.merge.prefix:
            return self._judge_lists(retriever, batch, self.config.ks)
        users: dict[str, Tensor] = {}
        for k in self.config.ks:  # a list by quota is no part of a longer one
            if users:
                users[_list_of(users["recommended"].shape[1])] = users["recommended"]
            users |= self._judge_lists(retriever, batch, (k,))
        return users

    def _judge_lists(
        self, retriever: Retriever, batch: Batch, cuts: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """Figures of the lists with `cuts[-1]` items at every cut."""
        k = cuts[-1]
        ks = torch.tensor(cuts, device=batch.ids.device)
        history, targets = batch.jagged(HISTORY), batch.padded(TARGET)
        seen = Pairs.of_lists(history.values(), history.lengths())
        events = seen.counts(len(batch))
        if self.exclude_seen:
            targets = targets.masked_fill(seen.contains(targets), 0)
        stages = list(retriever.stages(batch, k, self._hidden(batch, seen, targets)))
        if retriever.needs_history:
            cold = (events == 0).unsqueeze(1)
            stages = [
                stage._replace(
                    items=stage.items.masked_fill(cold, 0), scores=stage.scores.masked_fill(cold, 0)
                )
                for stage in stages
            ]
        lists = Candidates(stages[-1].items[:, :k].contiguous(), stages[-1].scores[:, :k].float())
        relevant = contains(targets, lists.ids) & (lists.ids != 0)
        total = (targets != 0).sum(1)
        users = {
            "user": batch.id(self.user),
            "history": events,
            "targets": total,
            "recommended": _fill(lists.ids.int(), k),
            "scores": _fill(lists.scores, k),
        }
        hits, least = Hits.of(relevant, ks), total.clamp(min=1)
        columns = {name: metric(hits, least, ks) for name, metric in METRICS.items()}
        money: dict[str, Tensor] = {}
        if self.facts is not None:
            users[_RARITY] = self.facts.rarity[targets].masked_fill(targets == 0, 0).sum(1)
            columns |= self._beyond(self.facts, lists, relevant, users[_RARITY], ks)
            if batch.has(TARGET_VALUE):
                values = batch.padded(TARGET_VALUE).double() * MILLIONTH
                values = values.masked_fill(targets == 0, 0.0)
                users["value"] = values.sum(1)
                values_at = _at(lists, relevant, targets, values)
                columns["GMV"] = gmv(values_at, ks)
                columns["PriceNDCG"] = price_ndcg(values_at, values, ks)
                money["GMV"] = values
            if batch.has(TARGET_PROFIT):
                profits = batch.padded(TARGET_PROFIT).double() * MILLIONTH
                profits = profits.masked_fill(targets == 0, 0.0)
                users["reachable_profit"] = profits.clamp(min=0).sum(1)
                columns["Profit"] = profit(_at(lists, relevant, targets, profits), ks)
                money["Profit"] = profits
            if self.facts.prices is not None and retriever.probabilities:
                prices = self.facts.prices[lists.ids]
                columns["ExpectedRevenue"] = expected_revenue(lists.scores.double(), prices, ks)
            if self.config.slice_cut in cuts:
                users |= self._slices(self.facts, lists, hits, targets)
        if len(stages) > 1 and self.config.slice_cut in cuts:
            users |= stage_columns(stages, targets, money, self.config.slice_cut)
        for column, cut in enumerate(cuts):
            users |= {f"{name}@{cut}": values[:, column] for name, values in columns.items()}
        return users

    def _hidden(self, batch: Batch, seen: Pairs, targets: Tensor) -> Pairs | None:
        """Item rows that must not be ranked."""
        if self.sampled is None:
            return seen if self.exclude_seen else None
        hidden = []
        candidates = self.candidates.cpu().numpy()
        users = batch.id(self.user).tolist()
        histories = seen.items.split(seen.counts(len(batch)).tolist())
        for user, history, wanted in zip(users, histories, targets.tolist(), strict=True):
            # by user, so that the draw is the same for every model and batch size
            random = np.random.default_rng([self.seed, user % 2**64])  # a code may be negative
            pool = np.setdiff1d(candidates, [*history.tolist(), *wanted])
            drawn = random.choice(pool, min(self.sampled, len(pool)), replace=False)
            hidden.append(torch.from_numpy(np.setdiff1d(candidates, [*drawn, *wanted])))
        lengths = torch.tensor([len(items) for items in hidden])
        pairs = Pairs.of_lists(torch.cat(hidden), lengths)
        return Pairs(*(column.to(targets.device) for column in pairs))

    def _beyond(
        self, facts: ItemFacts, lists: Candidates, relevant: Tensor, rarity: Tensor, ks: Tensor
    ) -> dict[str, Tensor]:
        ids = lists.ids
        columns = {
            "Novelty": novelty(ids, facts.information, ks),
            "StratifiedRecall": stratified_recall(relevant, facts.rarity[ids], rarity, ks),
            "VectorDiversity": diversity(ids, facts.vectors, ks),
        }
        if facts.categories is not None:
            columns["CategoryDiversity"] = diversity(ids, facts.categories, ks)
        return columns

    def _slices(
        self, facts: ItemFacts, lists: Candidates, hits: Hits, targets: Tensor
    ) -> dict[str, Tensor]:
        """Figures [B] of the same lists where only targets in a slice of items are relevant, for
        each slice, NaN for users without one."""
        ks = torch.tensor([self.config.slice_cut], device=targets.device)
        members = facts.members[lists.ids[hits.user, hits.position]]
        within = hits.within(members, ks)
        totals = facts.members[targets].sum(1).T.flatten().long()  # members of row 0 are none
        columns: dict[str, Tensor] = {}
        for name in SLICED:
            values = METRICS[name](within, totals.clamp(min=1), ks)[:, 0]
            values = values.masked_fill(totals == 0, torch.nan).view(len(facts.slices), -1)
            columns |= {
                str(Figure(name, self.config.slice_cut, label)): of_slice
                for label, of_slice in zip(facts.slices, values, strict=True)
            }
        return columns


def _at(lists: Candidates, relevant: Tensor, targets: Tensor, values: Tensor) -> Tensor:
    """The money [B, K] of the item at each position, from that [B, L] of the targets [B, L]."""
    ordered, order = targets.sort(dim=1)
    nearest = torch.searchsorted(ordered, lists.ids.to(ordered.dtype))
    nearest = nearest.clamp(max=targets.shape[1] - 1)
    return values.gather(1, order).gather(1, nearest) * relevant


def _weighted(users: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weigh StratifiedRecall by the rarity of each user's targets, which is 1 on average.

    Its mean over users is then the weight of all hits / the weight of all targets; a plain mean of
    ratios would weigh nothing where users have one target each.
    """
    if _RARITY in users:
        users[_RARITY] = weight = users[_RARITY] / users[_RARITY].mean()
        for name in users:
            if name.startswith("StratifiedRecall@"):
                users[name] = users[name] * weight
    return users


def _list_of(k: int) -> str:
    """The column of the lists at a cut-off below the last."""
    return f"recommended@{k}"


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Columns of parts of the users, one part behind the other. The parts are used up, so that
    only a single column is in memory twice."""
    columns = {}
    for name in list(parts[0]):
        pieces = [part.pop(name) for part in parts]
        columns[name] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return columns


def _mean(values: np.ndarray) -> float:
    """The mean of those who have a value: nobody has a diversity at k = 1."""
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if len(measured) else float("nan")


def _fill(values: Tensor, k: int) -> Tensor:
    """[B, <= k] -> [B, k]: lists shorter than k end in zeros."""
    return torch.nn.functional.pad(values, (0, k - values.shape[1]))


def _why_nobody(has_history: np.ndarray, has_targets: np.ndarray, exclude_seen: bool) -> str:
    """Why no user of [U] can be judged, and what to do about it."""
    if not has_history.any():
        return (
            f"none of the {len(has_history):,} users of the test has a history: nothing to "
            "evaluate; choose another protocol under [split], or split.cold_users = 'count'"
        )
    if exclude_seen:
        return (
            f"nothing to evaluate: of the {int(has_history.sum()):,} users with a history each has "
            "had all its targets before, and split.seen = 'exclude' leaves those out; where people "
            "buy again set split.seen = 'include'"
        )
    return "no user has both a history and a target: nothing to evaluate"
