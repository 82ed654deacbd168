"""Rankers, one file each. A new one is its file and one line in the dict below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from recsys.options import ChosenByName, ModelConfig, import_class

if TYPE_CHECKING:  # a config names rankers, and imports only the one that it names
    from recsys.data.examples import Examples
    from recsys.embeddings.options import EmbeddingsConfig
    from recsys.rankers.base import Ranker

RANKERS = {
    "dcn": "recsys.rankers.dcn.DCN",
    "pooling": "recsys.rankers.pooling.Pooling",
    "din": "recsys.rankers.din.DIN",
    "sesa": "recsys.rankers.sesa.SESA",
    "hcn": "recsys.rankers.hcn.HCN",
}
RankerConfig = Annotated[ModelConfig, ChosenByName(RANKERS)]


def ranker_class(name: str) -> type[Ranker]:
    """The class of the ranker of that name; its options are its `Config`."""
    return import_class(RANKERS[name])  # type: ignore[no-any-return]


def build(
    config: ModelConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
) -> Ranker:
    """The ranker that a config describes, with weights drawn from torch's random state."""
    return ranker_class(config.name)(config, embeddings, examples, seed)  # type: ignore[call-arg, arg-type]
