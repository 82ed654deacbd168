"""Raw rows -> a store: validated, nothing dropped silently."""

from __future__ import annotations

from feature_store.ingest.store import QUARANTINE, REPORT, Count, IngestReport, ingest

__all__ = ["QUARANTINE", "REPORT", "Count", "IngestReport", "ingest"]
