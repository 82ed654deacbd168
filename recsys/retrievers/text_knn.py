"""TextKNN: items whose words are those of the history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from feature_store.examples import RowsOf
from recsys.data.examples import Examples, Interactions
from recsys.data.item_features import described_by
from recsys.inputs import History
from recsys.layers.sparse_linear import SparseLinear
from recsys.options import ModelConfig
from recsys.retrievers.fitted import ScoringRetriever
from recsys.text.tfidf import weighed_words


class TextKNNConfig(ModelConfig):
    """Nearest neighbours by TF-IDF. It learns nothing from events: what any model of texts must
    surpass."""

    name: Literal["text_knn"] = "text_knn"
    attributes: tuple[str, ...] = Field(
        (), description="Features of items that are read; empty takes all texts, ids and bags."
    )
    min_items: int = Field(2, ge=1, description="Items that a word must occur in to count.")
    max_length: int = Field(50, ge=1, description="Events of the history that are averaged.")

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "max_length": {"low": 1, "high": 50, "log": True},
    }


class TextKNN(ScoringRetriever):
    """An item's score is the mean of its cosines, by TF-IDF, to the history's distinct items.

    Items without training events are found as any others.
    """

    rows_of = replace(RowsOf(), texts=True)
    Config = TextKNNConfig
    config: TextKNNConfig

    def __init__(self, config: TextKNNConfig, examples: Examples, seed: int = 0) -> None:
        super().__init__(config, examples, seed)
        self.inputs = (History(examples.schema.item, config.max_length),)
        self.features = described_by(
            config.attributes, examples.schema, option="retriever.attributes"
        )

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Weigh the words of all items."""
        table = examples.item_attributes(tuple(f.name for f in self.features))
        matrix, self.names = weighed_words(table, self.features, self.config.min_items)
        self.words = SparseLinear(matrix)
        self.likeness = SparseLinear(matrix.T)

    def score(self, histories: Tensor) -> Tensor:
        """Scores [B, N]; 0 for what shares no word with the history."""
        return self.likeness(self.words(histories)) / histories.sum(1, keepdim=True).clamp(min=1)

    def word_names(self) -> tuple[str, ...]:
        """The columns of TF-IDF."""
        return self.names
