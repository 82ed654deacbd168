"""Engines: lazy tables of any size, on an embedded engine that spills to disk, or on a cluster.

Tables are Ibis expressions; this package alone knows which engine computes them. What an engine has
to do is said in `operations`; each has a file of its own.
"""

from __future__ import annotations

from feature_store.engine.config import EngineConfig
from feature_store.engine.engine import Engine

__all__ = ["Engine", "EngineConfig"]
