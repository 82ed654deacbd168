"""A graph of neighbours, in which a search goes on to whoever is nearer to the query."""

from __future__ import annotations

from math import ceil
from typing import Any

from recsys.serving.index.ivf import CODES
from recsys.serving.index.native import NativeIndex
from recsys.serving.index.options import HNSWConfig


class HNSWIndex(NativeIndex):
    """Hierarchical navigable small worlds (Malkov & Yashunin, 2018). Removed items stay where they
    are, as steps on the way to others."""

    @classmethod
    def factory(cls, items: int, width: int, config: HNSWConfig) -> str:
        """Such as HNSW16,Flat."""
        return f"HNSW{config.neighbours},{CODES[config.codes]}"

    def _parameters(self, ask: int, share: float, selector: dict[str, Any]) -> Any:
        import faiss

        assert self._index.hnsw is not None
        effort = ceil(max(self.config.effort, 2 * ask) / share)
        return faiss.SearchParametersHNSW(efSearch=min(effort, len(self)), **selector)
