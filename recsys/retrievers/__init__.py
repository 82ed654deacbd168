"""Retrievers, one file each. A new one is its file and one line in the dict below."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.options import ModelConfig
from recsys.retrievers.ada_retrieval import AdaRetrieval, AdaRetrievalConfig
from recsys.retrievers.als import ALS, ALSConfig
from recsys.retrievers.base import VectorRetriever
from recsys.retrievers.bpr import BPR, BPRConfig
from recsys.retrievers.ease import EASE, EASEConfig
from recsys.retrievers.gf_cf import GFCF, GFCFConfig
from recsys.retrievers.graph import Graph, GraphConfig
from recsys.retrievers.hstu import HSTU, HSTUConfig
from recsys.retrievers.item_knn import ItemKNN, ItemKNNConfig
from recsys.retrievers.knn_embed import KNNEmbed, KNNEmbedConfig
from recsys.retrievers.multi_interest import MultiInterest, MultiInterestConfig
from recsys.retrievers.popularity import Popularity, PopularityConfig, RecentPopularityConfig
from recsys.retrievers.sasrec import SASRec, SASRecConfig
from recsys.retrievers.trained import TrainedRetriever
from recsys.retrievers.two_tower import TwoTower, TwoTowerConfig

RETRIEVERS: dict[type[ModelConfig], type[VectorRetriever]] = {
    PopularityConfig: Popularity,
    RecentPopularityConfig: Popularity,
    ItemKNNConfig: ItemKNN,
    EASEConfig: EASE,
    GFCFConfig: GFCF,
    ALSConfig: ALS,
    BPRConfig: BPR,
    SASRecConfig: SASRec,
    HSTUConfig: HSTU,
    TwoTowerConfig: TwoTower,
    MultiInterestConfig: MultiInterest,
    GraphConfig: Graph,
    KNNEmbedConfig: KNNEmbed,
    AdaRetrievalConfig: AdaRetrieval,
}
AnyRetrieverConfig = Annotated[
    PopularityConfig
    | RecentPopularityConfig
    | ItemKNNConfig
    | EASEConfig
    | GFCFConfig
    | ALSConfig
    | BPRConfig
    | SASRecConfig
    | HSTUConfig
    | TwoTowerConfig
    | MultiInterestConfig
    | GraphConfig
    | KNNEmbedConfig
    | AdaRetrievalConfig,
    Field(discriminator="name"),
]
BY_NAME = {config.model_fields["name"].default: config for config in RETRIEVERS}


def build(
    config: ModelConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
) -> VectorRetriever:
    """The retriever that a config describes, with weights drawn from torch's random state."""
    kind = RETRIEVERS[type(config)]
    if issubclass(kind, TrainedRetriever):
        return kind(config, embeddings, examples, seed)  # type: ignore[call-arg, arg-type]
    return kind(config, examples, seed)  # type: ignore[call-arg, arg-type]
