"""Raw rows -> a store: validated, nothing dropped silently."""

from __future__ import annotations

from feature_store.ingest.appending import append
from feature_store.ingest.store import QUARANTINE, REPORT, Appended, Count, IngestReport, ingest

__all__ = ["QUARANTINE", "REPORT", "Appended", "Count", "IngestReport", "append", "ingest"]
