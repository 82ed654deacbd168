"""Days that followed one another, as a page: what a fresh model was worth, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.report.charts import Chart, over_days
from recsys.report.page import write_page

_SERIES = {"fresh": "fresh", "served": "in service", "stale": "never renewed"}


def write_days(records: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write the records of `days.json` as one page, and its charts beside it as `days_*.png`;
    returns the page."""
    charts = [chart for chart in (worth(records), cost(records)) if chart is not None]
    for chart in charts:
        chart.save(path.parent)
    return write_page(path, "days.html", {"records": records, "charts": charts})


def worth(records: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The figure of each day's model, of the bundle that was in service, and of the first one where
    that was measured; None before the second day."""
    judged = [record for record in records if "gate" in record]
    if not judged:
        return None
    metric = judged[-1]["gate"]["metric"]
    lines = {
        name: [record["gate"].get(key, record.get(key)) for record in judged]
        for key, name in _SERIES.items()
    }
    told = {name: values for name, values in lines.items() if any(v is not None for v in values)}
    caption = (
        f"{metric} on each day, of the model that had learned until the day before, of the bundle "
        "that was in service, and of the first one where it was measured."
    )
    days = [str(record["day"]) for record in judged]
    return over_days("days_worth", f"{metric}, day by day", days, told, metric, caption)


def cost(records: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Events of the log, and those that each day's examples were made of."""
    days = [str(record["day"]) for record in records]
    rows = [record.get("rows", {}) for record in records]
    lines = {
        "events of the log": [row.get("log") for row in rows],
        "read for the examples": [row.get("read") for row in rows],
        "that arrived": [record["arrived"].get("stored") for record in records],
    }
    caption = "Events of the log, those that a day's examples were made of, and those that came."
    return over_days("days_cost", "Rows of a day", days, lines, "events", caption, log=True)
