"""Lists of items around centres, the nearest of which are read."""

from __future__ import annotations

from typing import Any

from recsys.serving.index.native import NativeIndex, lists_of, probes_of
from recsys.serving.index.options import IVFConfig

CODES = {"flat": "Flat", "fp16": "SQfp16", "sq8": "SQ8"}


class IVFIndex(NativeIndex):
    """An inverted file: items as they are, or as two bytes or one a number of what is left of
    them without their centre."""

    @classmethod
    def factory(cls, items: int, width: int, config: IVFConfig) -> str:
        """Such as IVF2000,SQ8."""
        return f"IVF{lists_of(items, config.lists)},{CODES[config.codes]}"

    def _parameters(self, ask: int, share: float, selector: dict[str, Any]) -> Any:
        import faiss

        probes = probes_of(self._index, self.config.probes, ask, share)
        return faiss.SearchParametersIVF(nprobe=probes, **selector)
