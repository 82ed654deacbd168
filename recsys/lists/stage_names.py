"""What the stages of a funnel are called that are no generators."""

from __future__ import annotations

CANDIDATES, COARSE, FINE, DIVERSITY, LIST = "candidates", "coarse", "fine", "diversity", "list"
STAGES = (CANDIDATES, COARSE, FINE, DIVERSITY, LIST)
