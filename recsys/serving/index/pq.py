"""A shortlist by product quantisation in lists around centres, ranked again by better codes."""

from __future__ import annotations

from typing import Any

from recsys.serving.index.native import NativeIndex, lists_of, probes_of
from recsys.serving.index.options import PQConfig

REFINED = {"flat": "RFlat", "fp16": "Refine(SQfp16)", "sq8": "Refine(SQ8)"}


class PQIndex(NativeIndex):
    """Four bits for each part of a vector, compared by table lookups within a register (Andre,
    Kermarrec & Le Scouarnec, 2015), then the best of them as they are or as one byte a number."""

    @classmethod
    def factory(cls, items: int, width: int, config: PQConfig) -> str:
        """Such as IVF2000,PQ32x4fs,RFlat."""
        parts = config.parts or (width // 2 if width % 2 == 0 else width)
        lists = lists_of(items, config.lists)
        return f"IVF{lists},PQ{parts}x4fs,{REFINED[config.refine]}"

    def _parameters(self, ask: int, share: float, selector: dict[str, Any]) -> Any:
        import faiss

        lists = faiss.downcast_index(self._index.base_index)
        shortlist = ask * self.config.shortlist
        probes = probes_of(lists, self.config.probes, shortlist, share)
        return faiss.IndexRefineSearchParameters(
            k_factor=float(self.config.shortlist),
            base_index_params=faiss.SearchParametersIVF(nprobe=probes, **selector),
        )
