"""No request gets a fault, nor an answer that the document does not allow."""

from __future__ import annotations

from pathlib import Path

import pytest
from asked import serving

from benchmarks.server_fuzz import fuzz


@pytest.mark.filterwarnings("ignore")
def test_requests_of_the_document_and_against_it(folder: Path) -> None:
    with serving(folder, window_ms=0, explorer=False) as asking:
        statuses = fuzz(asking.app, examples=3)
    assert max(statuses) < 500 and {200, 422} <= set(statuses)
