"""Options that every retriever and every ranker has."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class ModelConfig(BaseModel):
    """A retriever's or ranker's own options; `name` chooses it.

    `search_space` is what `recsys tune` tries by default, by option: low and high, or choices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    search_space: ClassVar[dict[str, dict[str, Any]]] = {}

    name: str
