"""Templates -> pages that need nothing beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from feature_store.durable import write_text
from recsys.report import charts


def write_page(
    path: Path, template: str, page: Mapping[str, Any], **filters: Callable[..., Any]
) -> Path:
    """Fill a template of this package, with filters besides those that all have; returns `path`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("recsys.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = lambda chart: Markup(chart.svg)  # made by us, text escaped
    environment.filters["short"] = charts.shorten
    environment.filters |= filters
    html = environment.get_template(template).render(
        **page, theme=charts.THEME, colours=charts.COLOURS
    )
    write_text(html, path)
    return path
