"""Charts whose numbers can be read: axes that end where the figures do, labels that stand apart."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from recsys.report.charts import Chart, coverage_against_recall, over_k
from recsys.report.report import GROUPS

KS = (1, 5, 10, 20, 50, 100)


def series(coverage: float, ks: tuple[int, ...] = KS) -> dict[str, dict[str, Any]]:
    """Two retrievers; figures grow with k, the first ones by next to nothing."""
    most = max(ks) ** 2
    metrics = {f"Recall@{k}": 0.3 * k**2 / most for k in ks}
    metrics |= {f"Coverage@{k}": coverage * k**2 / most for k in ks}
    return {"a": {"metrics": metrics}, "b": {"metrics": metrics}}


def overprinted(chart: Chart, texts: list[Text]) -> list[tuple[str, str]]:
    canvas = FigureCanvasAgg(chart.figure)
    canvas.draw()
    boxes = {text.get_text(): text.get_window_extent(canvas.get_renderer()) for text in texts}
    boxes.pop("", None)
    return [(a, b) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]


@pytest.mark.parametrize(("coverage", "top"), [(0.04, 0.05), (0.5, 0.6), (1.0, 1.04)])
def test_the_axis_of_coverage_ends_where_the_points_do(coverage: float, top: float) -> None:
    chart = coverage_against_recall(series(coverage))
    assert chart is not None
    bottom, end = chart.figure.axes[0].get_ylim()
    assert bottom == 0 and coverage < end <= top


def test_no_number_is_printed_over_another() -> None:
    chart = coverage_against_recall(series(0.04))
    assert chart is not None
    numbers = [text for text in chart.figure.axes[0].texts if text.get_text()]
    assert overprinted(chart, numbers) == []
    assert {"1", "50", "100"} <= {text.get_text() for text in numbers} < set(map(str, KS))


@pytest.mark.parametrize("ks", [KS, tuple(range(1, 31)), (98, 99, 100)])
def test_cut_offs_that_lie_close_are_not_all_named(ks: tuple[int, ...]) -> None:
    chart = over_k(series(0.5, ks), "Recall", "found")
    assert chart is not None
    ticks = chart.figure.axes[0].get_xticklabels()
    assert overprinted(chart, ticks) == []
    assert ticks[-1].get_text() == str(ks[-1])
    if ks == KS:
        assert [text.get_text() for text in ticks] == list(map(str, KS))


def test_both_files_of_a_chart_have_the_layout_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chart, made = over_k(series(0.5), "Recall", "found"), []
    assert chart is not None
    execute = ConstrainedLayoutEngine.execute
    monkeypatch.setattr(
        ConstrainedLayoutEngine, "execute", lambda *of: (made.append(of), execute(*of))
    )
    picture = image.imread(chart.save(tmp_path))
    place = chart.figure.axes[0].get_position().bounds
    assert "<path" in chart.svg and chart.figure.axes[0].get_position().bounds == place
    assert len(made) == 1
    assert picture.shape[:2] == tuple(round(160 * inches) for inches in (3.1, 4.7))
    assert picture[0, 0, :3].tolist() == [1, 1, 1]  # on white


def test_every_meaning_stands_by_itself() -> None:
    texts = [text for group in GROUPS.values() for text in group.values()]
    assert [text for text in texts if text.startswith("the same")] == []
