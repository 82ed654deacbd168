"""Rankers, one file each. A new one is its file and one line in the dict below."""

from __future__ import annotations

from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.options import ModelConfig
from recsys.rankers.base import Ranker
from recsys.rankers.dcn import DCN, DCNConfig

RANKERS: dict[type[ModelConfig], type[Ranker]] = {DCNConfig: DCN}
AnyRankerConfig = DCNConfig  # a union, discriminated by `name`, once there are two
BY_NAME = {config.model_fields["name"].default: config for config in RANKERS}


def build(
    config: ModelConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
) -> Ranker:
    """The ranker that a config describes, with weights drawn from torch's random state."""
    return RANKERS[type(config)](config, embeddings, examples, seed)  # type: ignore[call-arg, arg-type]
