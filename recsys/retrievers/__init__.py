"""Retrievers, one file each. A new one is its file and one line in the dict below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from recsys.options import ChosenByName, ModelConfig, import_class

if TYPE_CHECKING:  # a config names retrievers, and imports only those that it names
    from recsys.data.examples import Examples
    from recsys.embeddings.options import EmbeddingsConfig
    from recsys.retrievers.fitted import FittedRetriever
    from recsys.retrievers.trained import TrainedRetriever

RETRIEVERS = {
    "popularity": "recsys.retrievers.popularity.Popularity",
    "recent_popularity": "recsys.retrievers.popularity.RecentPopularity",
    "personal_popularity": "recsys.retrievers.personal_popularity.PersonalPopularity",
    "tifu_knn": "recsys.retrievers.tifu_knn.TIFUKNN",
    "text_knn": "recsys.retrievers.text_knn.TextKNN",
    "item_knn": "recsys.retrievers.item_knn.ItemKNN",
    "ease": "recsys.retrievers.ease.EASE",
    "gf_cf": "recsys.retrievers.gf_cf.GFCF",
    "bspm": "recsys.retrievers.bspm.BSPM",
    "als": "recsys.retrievers.als.ALS",
    "bpr": "recsys.retrievers.bpr.BPR",
    "sasrec": "recsys.retrievers.sasrec.SASRec",
    "unisrec": "recsys.retrievers.unisrec.UniSRec",
    "hstu": "recsys.retrievers.hstu.HSTU",
    "two_tower": "recsys.retrievers.two_tower.TwoTower",
    "multi_interest": "recsys.retrievers.multi_interest.MultiInterest",
    "graph": "recsys.retrievers.graph.Graph",
    "knn_embed": "recsys.retrievers.knn_embed.KNNEmbed",
    "recformer": "recsys.retrievers.recformer.Recformer",
    "ada_retrieval": "recsys.retrievers.ada_retrieval.AdaRetrieval",
}
RetrieverConfig = Annotated[ModelConfig, ChosenByName(RETRIEVERS)]


def _named(retriever: Any) -> Any:
    return {"name": retriever} if isinstance(retriever, str) else retriever


NamedRetriever = Annotated[RetrieverConfig, BeforeValidator(_named)]
"""A name alone stands for a retriever with its default options."""


def retriever_class(name: str) -> type[FittedRetriever] | type[TrainedRetriever]:
    """The class of the retriever of that name; its options are its `Config`."""
    return import_class(RETRIEVERS[name])  # type: ignore[no-any-return]


def build(
    config: ModelConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
) -> FittedRetriever | TrainedRetriever:
    """The retriever that a config describes, with weights drawn from torch's random state."""
    return retriever_class(config.name).make(config, embeddings, examples, seed)
