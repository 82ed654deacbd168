"""The contract of retrievers. B users, K interests, D width, N item rows, T positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from recsys.data.batch import Batch
from recsys.inputs import Input
from recsys.lists.funnel import Stage
from recsys.lists.merging import BY_SCORE, Merge
from recsys.lists.pairs import Pairs
from recsys.lists.search import search
from recsys.lists.stage_names import LIST
from recsys.model import Model
from recsys.text.options import TextConfig
from recsys.text.tokens import Tokenizer

if TYPE_CHECKING:  # nobody else needs scipy and scikit-learn
    from recsys.data.examples import Examples
    from recsys.text.tfidf import WordSpace


class Queries(NamedTuple):
    """What a user looks for: vectors [B, K, D] and weights [B, K] of interests."""

    vectors: Tensor
    weights: Tensor


class Candidates(NamedTuple):
    """Item rows [B, k], best first, and their scores [B, k]; row 0 fills up short lists."""

    ids: Tensor
    scores: Tensor


class ItemReader(NamedTuple):
    """What encodes items that nobody has had from their texts: a program that makes vectors [n, D],
    as they are compared, of tokens [n, S] and their types [n, S]; and how texts become tokens."""

    program: nn.Module
    tokenizer: Tokenizer
    text: TextConfig


class Retriever(Protocol):
    """Finds items for requests: what is evaluated, whatever it is made of.

    `inputs` say what it reads of a request; `merge` how its lists come about, see
    `recsys.lists.search`; `needs_history` whether it leaves users without one unanswered;
    `probabilities` whether its scores are probabilities of a purchase.
    """

    @property
    def inputs(self) -> tuple[Input, ...]: ...
    @property
    def merge(self) -> Merge: ...

    needs_history: bool
    probabilities: bool
    training: bool

    def prepare(self, candidates: Tensor) -> None:
        """Fix the item rows that may be retrieved."""

    def retrieve(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Candidates:
        """The k best candidates of each user, without the item rows that `exclude` pairs it with.

        Raises RuntimeError before `prepare`.
        """

    def stages(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Iterator[Stage]:
        """What is left after each of its stages, where it has several, as soon as it is done: item
        rows, 0 for none. The first k of the last one are what `retrieve` gives."""

    def variants(self) -> Mapping[str, Retriever]:
        """Reduced forms of it that are measured beside it, by label."""

    def state_dict(self) -> dict[str, Any]:
        """Its parameters by name; none where nothing was learned."""

    def train(self, mode: bool = True) -> Self:
        """Learn, or answer."""

    def eval(self) -> Self:
        """Answer."""

    def to(self, device: torch.device) -> Self:
        """Move to a device."""


class VectorRetriever(Model, ABC):
    """A retriever whose score is the inner product of a user's and an item's vector.

    The one description of a user's side is `encode`: training, evaluation and the exported
    tower all run it on the tensors that `inputs` names. `merge` says how what several interests
    find becomes one list, see `recsys.lists.search`.
    """

    merge: Merge = BY_SCORE
    needs_history: bool = True
    probabilities: bool = False

    def __init__(self) -> None:
        super().__init__()
        self._prepared: tuple[Tensor, Tensor, Tensor] | None = None

    @abstractmethod
    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """The user's vectors from the tensors that `inputs` describes."""

    @abstractmethod
    def embed_items(self, rows: Tensor) -> Tensor:
        """Vectors [n, D] of item rows [n]; or [n] columns of the 1 in unit vectors."""

    def compared(self, vectors: Tensor) -> Tensor:
        """Vectors [..., D] of users or items as they are compared, such as those of unit length."""
        return vectors

    def variants(self) -> Mapping[str, VectorRetriever]:
        """None."""
        return {}

    def item_reader(self) -> ItemReader | None:
        """What encodes new items from their texts; None where texts alone do not make a vector."""
        return None

    def word_space(self, examples: Examples) -> WordSpace | None:
        """The words that frozen vectors of its items were made of, where it has `described`."""
        return None

    def described(self, rows: Tensor, vectors: Tensor) -> Tensor:
        """Item vectors [n, D] as `embed_items`, if their texts had these vectors [n, S]."""
        raise NotImplementedError

    def word_names(self) -> tuple[str, ...] | None:
        """The words that scores are the sum of, in the order of the columns of its `words`; None
        where they are not."""
        return None

    def embed_users(self, batch: Batch) -> Queries:
        """The vectors of a batch's users."""
        return self.encode(self.inputs_of(batch))

    @torch.no_grad()
    def item_matrix(self, rows: Tensor, chunk: int = 65_536) -> Tensor:
        """What `embed_items` says of many item rows, computed in chunks."""
        return torch.cat([self.embed_items(block) for block in rows.split(chunk)])

    def prepare(self, candidates: Tensor) -> None:
        """Fix what may be retrieved, and compute its vectors once with the current weights."""
        index_of = torch.full((int(candidates.max()) + 1,), -1, device=candidates.device)
        index_of[candidates] = torch.arange(len(candidates), device=candidates.device)
        self._prepared = (candidates, self.item_matrix(candidates), index_of)

    def prepare_as(self, other: VectorRetriever) -> None:
        """Retrieve by the very vectors that `other` has prepared."""
        self._prepared = other._prepared

    @torch.no_grad()
    def retrieve(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Candidates:
        """The k best candidates of each user, without the item rows that `exclude` pairs it with.

        Raises RuntimeError before `prepare`.
        """
        if self._prepared is None:
            raise RuntimeError("call prepare(candidates) before retrieve()")
        candidates, items, index_of = self._prepared
        if exclude is not None:
            exclude = exclude.where(exclude.items < len(index_of))
            exclude = Pairs(exclude.users, index_of[exclude.items])
            exclude = exclude.where(exclude.items >= 0)
        queries = self.embed_users(batch)
        scores, indices = search(queries.vectors, queries.weights, items, k, exclude, self.merge)
        ids = candidates[indices.clamp(min=0)].masked_fill(indices < 0, 0)
        return Candidates(ids, scores)

    def stages(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Iterator[Stage]:
        """The list alone."""
        yield Stage(LIST, *self.retrieve(batch, k, exclude), shown=True)


def single_interest(vectors: Tensor) -> Queries:
    """Queries of one interest from vectors [B, D]."""
    return Queries(
        vectors.unsqueeze(1), vectors.new_ones(vectors.shape[0], 1)
    )  # len() is no symbol
