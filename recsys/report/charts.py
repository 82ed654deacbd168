"""Charts of a report: drawn once, written as SVG that takes on the page's colours and as PNG."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from feature_store.durable import written
from feature_store.file_names import file_name
from recsys import figure as figures
from recsys.evaluation.funnel import FUNNEL, RECALL, losses
from recsys.serving.index.record import MeasuredIndex, PromiseRecord

Series = Mapping[str, Mapping[str, Any]]
"""What is compared, in its order: name -> what metrics.json holds of a retriever."""

THEME = {  # name: on light ground, on dark ground
    "ink": ("#1c2330", "#e7eaef"),
    "muted": ("#59616e", "#a0a9b6"),
    "line": ("#dde1e7", "#303742"),
    # after Okabe and Ito, "Color Universal Design" (2008): told apart with any colour vision
    "c0": ("#0072b2", "#4aa3df"),
    "c1": ("#d55e00", "#f08a3c"),
    "c2": ("#009e73", "#2fc79b"),
    "c3": ("#b5598f", "#dd93bd"),
    "c4": ("#dd9a00", "#f2c14e"),
    "c5": ("#4fa9dc", "#a5dbff"),
    "c6": ("#6b6f76", "#b3b8c0"),
    "c7": ("#7a4b2a", "#c59a78"),
}
COLOURS = [name for name in THEME if name.startswith("c")]
_MARKERS = "osD^vPX*"
_DASHES = ("-", "--", ":", "-.")
_LIGHT = {name: light for name, (light, _) in THEME.items()}

_WIDTH, _HEIGHT = 4.7, 3.1  # inches: near the width at which a page shows it, so letters stay
_STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "text.color": _LIGHT["ink"],
    "text.parse_math": False,  # "$5 to $10" is a label, not a formula
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelcolor": _LIGHT["muted"],
    "axes.edgecolor": _LIGHT["line"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LIGHT["line"],
    "grid.linewidth": 0.6,
    "xtick.color": _LIGHT["line"],
    "ytick.color": _LIGHT["line"],
    "xtick.labelcolor": _LIGHT["muted"],
    "ytick.labelcolor": _LIGHT["muted"],
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
}
_WHOLE = 1.04  # the end of an axis of shares, where points at 1 are seen whole
_DPI = 160  # of PNG
_PLOT = 0.75  # of a figure's width and height, about, are inside its axes
_LETTERS = (0.2, 0.13)  # inches that a number of three digits takes
_MOST_SLICES = 8
_LONGEST_LABEL = 28


class Estimate(NamedTuple):
    """A figure and the ends of its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float


def estimate(summary: Mapping[str, Any], name: str) -> Estimate:
    """A figure out of something with `metrics` and `ci95`."""
    low, high = (summary.get("ci95") or {}).get(name) or (None, None)
    return Estimate(*(_number(x) for x in (summary.get("metrics", {}).get(name), low, high)))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def cut_offs(series: Series, metric: str) -> list[int]:
    """The ks at which anyone has a metric, ascending."""
    names = (name for summary in series.values() for name in summary["metrics"])
    return figures.cut_offs(f for f in map(figures.Figure.parse, names) if f.name == metric)


def shorten(text: str, length: int) -> str:
    """At most `length` characters of a text, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


@dataclass(frozen=True)
class Chart:
    """A drawn figure; `name` is that of its file, `caption` says what is seen."""

    name: str
    caption: str
    figure: Figure

    def sign(self, protocol: str) -> None:
        """Write the protocol's short name above it: a picture is passed on without its page."""
        axes = self.figure.axes[0]
        look: dict[str, Any] = {"fontsize": 7, "fontweight": "normal", "color": _LIGHT["muted"]}
        axes.set_title(shorten(protocol, _LONGEST_LABEL), loc="right", **look)

    @property
    def svg(self) -> str:
        """An `<svg>` element to be put into a page that defines the colours of THEME."""
        file = io.StringIO()
        # The salt keeps the ids of one chart apart from those of the others on the page.
        with _styled(**{"svg.hashsalt": self.name}):
            FigureCanvasSVG(self.figure).print_svg(file, metadata={"Date": None})
            self._keep_layout()
        text = file.getvalue()
        box = re.search(r'viewBox="[^"]*"', text)
        assert box is not None
        body = text[text.index(">", text.index("<svg")) + 1 :]
        body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
        used = set(re.findall(r"#([\w-]+)[\")]", body))
        body = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", body)
        for name, colour in _LIGHT.items():
            body = body.replace(colour, f"var(--{name})")
        return f'<svg {box[0]} role="img" aria-labelledby="caption-{escape(self.name)}">{body}'

    def save(self, folder: Path) -> Path:
        """Write `<folder>/<name>.png`, on white."""
        path = folder / f"{file_name(self.name)}.png"
        with _styled():
            self.figure.set_facecolor("white")
            self.figure.set_dpi(_DPI)
            with written(path) as file:
                FigureCanvasAgg(self.figure).print_png(file)
            self.figure.set_facecolor("none")
            self._keep_layout()
        return path

    def _keep_layout(self) -> None:
        """Laying out takes longer than drawing: it is done for the first of both files."""
        self.figure.set_layout_engine("none")


@contextmanager
def _styled(**extra: Any) -> Iterator[None]:
    with matplotlib.rc_context(_STYLE | extra), warnings.catch_warnings():
        # Labels come in any script: a browser has the letters, the pictures may show boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


# Charts over retrievers


def over_k(series: Series, metric: str, what: str) -> Chart | None:
    """A metric over k with the bands of its intervals; None where nobody has it."""
    ks = cut_offs(series, metric)
    if not ks:
        return None
    with _styled():
        figure, axes = _axes(f"{metric}@k", "k (log scale)", "")
        for index, summary in enumerate(series.values()):
            line = _line(index)
            value, low, high = zip(*(estimate(summary, f"{metric}@{k}") for k in ks), strict=True)
            axes.plot(ks, value, **line)
            axes.fill_between(ks, low, high, color=line["color"], alpha=0.13, linewidth=0)
        axes.set_xscale("log")
        axes.set_xticks(ks, [""] * len(ks))
        labelled = _with_room(figure, axes, [(float(k), 1.0) for k in ks])
        axes.set_xticks(ks, [str(k) if place in labelled else "" for place, k in enumerate(ks)])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        _legend(figure, list(series))
    caption = f"{metric}@k: {what}, over the length k of the list; bands are 95 % intervals."
    return Chart(f"{metric.lower()}_over_k", caption, figure)


def coverage_against_recall(series: Series) -> Chart | None:
    """One point a retriever and k; None where either figure is absent."""
    ks = [k for k in cut_offs(series, "Coverage") if k in cut_offs(series, "Recall")]
    if not ks:
        return None
    with _styled():
        figure, axes = _axes("Coverage@k against Recall@k", "Recall@k", "Coverage@k")
        lines = [
            [(estimate(of, f"Recall@{k}").value, estimate(of, f"Coverage@{k}").value) for k in ks]
            for of in series.values()
        ]
        for index, points in enumerate(lines):
            axes.plot(*zip(*points, strict=True), **_line(index) | {"linewidth": 0.8})
        axes.set_xlim(left=0)
        axes.set_ylim(0, min(_WHOLE, axes.get_ylim()[1]))
        # The model's points carry their k; every line takes the ks in the same order.
        for place in _with_room(figure, axes, lines[0]):
            below: dict[str, Any] = {
                "xytext": (4, -9),
                "textcoords": "offset points",
                "fontsize": 7,
            }
            axes.annotate(str(ks[place]), lines[0][place], **below)
        _legend(figure, list(series))
    caption = (
        "Share of the candidates that anyone is shown against Recall, one point a k, joined from "
        f"k = {ks[0]} to {ks[-1]}; the numbers at the first line's points are k, where there is "
        "room for them."
    )
    return Chart("coverage_against_recall", caption, figure)


def by_slice(
    series: Series, family: str, metric: str, *, title: str, note: str = ""
) -> Chart | None:
    """Bars of a metric in the slices of a family; None where nobody has it.

    With many slices those with most users are shown. `title` is what people call the family,
    `note` a sentence for the caption.
    """
    every = slice_labels(series, family)
    slices = [(summary.get("slices") or {}).get(family) or {} for summary in series.values()]
    users = {
        label: max((by_label.get(label, {}).get("users") or 0 for by_label in slices), default=0)
        for label in every
    }
    largest = sorted(every, key=lambda label: -users[label])[:_MOST_SLICES]
    labels = [label for label in every if label in largest]
    estimates = [
        np.array([estimate(by_label.get(label, {}), metric) for label in labels]).reshape(-1, 3)
        for by_label in slices
    ]
    if all(np.isnan(of_labels[:, 0]).all() for of_labels in estimates):
        return None
    thick = min(0.17, 0.5 / len(series)) if len(series) < 4 else 0.115  # inches
    height = len(labels) * (thick * len(series) + 0.16) + 1.1
    with _styled():
        figure, axes = _axes(f"{metric} by {shorten(title, 24)}", metric, "", height=height)
        _bars(axes, estimates, step=1 / (len(series) + 0.16 / thick))
        axes.set_yticks(
            range(len(labels)),
            [f"{shorten(label, _LONGEST_LABEL)}\n{users[label]:,} users" for label in labels],
        )
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        _legend(figure, list(series), bars=True)
    left_out = len(every) - len(labels)
    sentences = [
        f"{metric} by {shorten(title, 60)}; whiskers are 95 % intervals.",
        note,
        f"The {len(labels)} slices with most users; {left_out} more in the tables."
        if left_out
        else "",
    ]
    slug = re.sub(r"\W+", "_", family.lower())
    return Chart(f"slice_{slug}", " ".join(filter(None, sentences)), figure)


def _bars(axes: Axes, estimates: Sequence[np.ndarray], *, step: float) -> None:
    """Bars with whiskers, side by side at every slice: of each retriever [slices, 3]; `step` from
    one bar to the next, of the distance between two slices."""
    for index, of_slices in enumerate(estimates):
        y = np.arange(len(of_slices)) + (index - (len(estimates) - 1) / 2) * step
        shown = np.isfinite(of_slices[:, 0])
        bars = of_slices[shown, 0]
        around = np.abs(of_slices[shown, 1:].T - bars)
        axes.barh(y[shown], bars, height=0.9 * step, color=_line(index)["color"])
        axes.errorbar(
            bars, y[shown], xerr=np.nan_to_num(around), fmt="none",
            ecolor=_LIGHT["ink"], elinewidth=0.8, capsize=1.5, capthick=0.8,
        )  # fmt: skip


def slice_labels(series: Series, family: str) -> list[str]:
    """The slices of a family that anyone has: in their order, ranges of numbers ascending."""
    slices = ((summary.get("slices") or {}).get(family) or {} for summary in series.values())
    labels = list(dict.fromkeys(label for by_label in slices for label in by_label))
    numbers = [re.match(r"\d+", label) for label in labels]
    starts = {label: int(n[0]) for label, n in zip(labels, numbers, strict=True) if n}
    return sorted(labels, key=starts.__getitem__) if len(starts) == len(labels) else labels


# Charts over stages


def funnel(series: Series) -> Chart | None:
    """Shares of targets, and of money, that each stage leaves, of the first retriever that has
    stages; None where nobody has."""
    staged = ((name, of[FUNNEL]) for name, of in series.items() if of.get(FUNNEL))
    name, stages = next(staged, ("", []))
    if not stages:
        return None
    captures = [kind for kind in stages[0]["metrics"] if kind.endswith("Capture")]
    shares = [RECALL, *captures]
    estimates = [np.array([estimate(stage, kind) for stage in stages]) for kind in shares]
    labels = [
        f"{shorten(stage['stage'], _LONGEST_LABEL)}\n{stage['items']:,.0f} items"
        + ("" if lost is None else f", {-lost:+.3f}")
        for stage, lost in zip(stages, losses(stages), strict=True)
    ]
    with _styled():
        height = len(stages) * (0.17 * len(shares) + 0.2) + 1.1
        figure, axes = _axes("What is left after each stage", "share of all", "", height=height)
        _bars(axes, estimates, step=1 / (len(shares) + 1))
        axes.set_yticks(range(len(stages)), labels)
        axes.set_ylim(len(stages) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        _legend(figure, shares, bars=True)
    caption = (
        f"Share of the targets (Recall) and of their money that the stages of {shorten(name, 60)} "
        "leave for a list to show, generators first, each alone and then together; behind the "
        "items, what is lost of the recall since the stage before. Whiskers are 95 % intervals."
    )
    return Chart("funnel", caption, figure)


# Charts over predictions


def calibration(series: Series) -> Chart | None:
    """Rates of positives over mean predictions, in bins; None where nobody predicts."""
    if not any(summary.get("calibration") for summary in series.values()):
        return None
    with _styled():
        figure, axes = _axes("Calibration", "mean prediction", "rate of positives")
        axes.plot([0, 1], [0, 1], color=_LIGHT["muted"], linewidth=0.8, linestyle=":")
        for index, summary in enumerate(series.values()):
            bins = summary.get("calibration") or {"predicted": [], "observed": []}
            axes.plot(bins["predicted"], bins["observed"], **_line(index))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        _legend(figure, list(series))
    caption = (
        "Rate of positives over the mean prediction, in ten bins of equal width; on the dotted "
        "line predictions are what happens."
    )
    return Chart("calibration", caption, figure)


# Charts over epochs


def loss(records: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Training loss by epoch, of runs by name; `records` hold what `training.json` does."""
    with _styled():
        figure, axes = _axes("Training loss", "epoch", "")
        for index, record in enumerate(records.values()):
            line = _line(index) | {"markersize": 2.5}
            _curve(axes, record["history"], "loss", line)
            for history in _other_phases(record).values():
                _curve(axes, history, "loss", line | {"linestyle": ":"})
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, list(records))
    names = dict.fromkeys(name for record in records.values() for name in _other_phases(record))
    caption = "Mean training loss of each epoch." + (
        f" Dotted: other phases of the training ({', '.join(names)})." if names else ""
    )
    return Chart("training_loss", caption, figure)


def _other_phases(record: Mapping[str, Any]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Epochs of the phases besides the main one, by their names."""
    ends = "_history"
    return {key.removesuffix(ends): epochs for key, epochs in record.items() if key.endswith(ends)}


def validation(records: Mapping[str, Mapping[str, Any]], metric: str) -> Chart | None:
    """A validation figure by epoch, the best epoch ringed; None where none was measured."""
    if not any(metric in h for record in records.values() for h in record["history"]):
        return None
    with _styled():
        figure, axes = _axes(f"Validation {metric}", "epoch", "")
        for index, record in enumerate(records.values()):
            line = _line(index) | {"markersize": 2.5}
            _curve(axes, record["history"], metric, line)
            best = [h for h in record["history"] if h["epoch"] == record.get("best_epoch")]
            ring = {"marker": "o", "markersize": 9, "fillstyle": "none", "linestyle": "none"}
            _curve(axes, best, metric, line | ring)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, list(records))
    caption = f"{metric} on the validation events after each epoch; the ring marks the epoch kept."
    return Chart("validation", caption, figure)


def _curve(
    axes: Axes, history: Sequence[Mapping[str, Any]], name: str, line: dict[str, Any]
) -> None:
    measured = [h for h in history if h.get(name) is not None]
    axes.plot([h["epoch"] for h in measured], [h[name] for h in measured], **line)


# Charts over kinds of indices


def index_speeds(part: str, record: PromiseRecord) -> Chart:
    """Queries a second over recall, a line a kind of index with rising effort; the ring is what was
    chosen, as all items gave it."""
    lines: dict[str, list[MeasuredIndex]] = {}
    for each in record.candidates:
        lines.setdefault(each.config.label, []).append(each)
    name = f"recall@{record.promise.k}"
    with _styled():
        figure, axes = _axes(f"Queries a second over {name}", name, "")
        for index, points in enumerate(lines.values()):
            recalls, speeds = zip(*((p.recall, p.queries_per_second) for p in points), strict=True)
            axes.plot(recalls, speeds, **_line(index))
        axes.axvline(record.promise.recall, color=_LIGHT["muted"], linewidth=0.8, linestyle=":")
        index = list(lines).index(record.chosen.config.label)
        ring = {"marker": "o", "markersize": 10, "fillstyle": "none", "linestyle": "none"}
        axes.plot(record.chosen.recall, record.chosen.queries_per_second, **_line(index) | ring)
        axes.set_yscale("log")
        _legend(figure, list(lines))
    caption = (
        f"Queries a second in batches (log scale) over {name} of every kind of index of "
        f"{shorten(part, 60)}, with rising effort, on {record.candidates[0].items:,} items; the "
        f"dotted line is what was promised, the ring what was chosen, of {record.chosen.items:,}."
    )
    return Chart(f"index_of_{part}", caption, figure)


# Charts over days


def over_days(
    name: str,
    title: str,
    days: Sequence[str],
    lines: Mapping[str, Sequence[float | None]],
    what: str,
    caption: str,
    *,
    log: bool = False,
) -> Chart:
    """A line for each name of `lines`, over `days`; None where a day has no such value."""
    with _styled():
        figure, axes = _axes(title, "", what)
        for index, values in enumerate(lines.values()):
            heights = [math.nan if value is None else value for value in values]
            axes.plot(range(len(days)), heights, **_line(index))
        shown = range(0, len(days), -(-len(days) // 7))  # dates are long
        axes.set_xticks(shown, [days[place][5:] for place in shown])
        if log:
            axes.set_yscale("log")
        _legend(figure, list(lines))
    return Chart(name, caption, figure)


# What they share


def _axes(title: str, x: str, y: str, *, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def _with_room(figure: Figure, axes: Axes, points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points in data coordinates can carry a number that prints over no other: the last one,
    and of the others, from the first on, those that stand apart from all that were chosen."""
    width, height = figure.get_size_inches()
    inside = (axes.transScale + axes.transLimits).transform(points)
    places = inside * (_PLOT * width, _PLOT * height)
    chosen: list[int] = []
    for place in (len(points) - 1, *range(len(points) - 1)):
        away = [np.abs(places[place] - places[other]) for other in chosen]
        if np.isfinite(places[place]).all() and all((gap > _LETTERS).any() for gap in away):
            chosen.append(place)
    return chosen


def _line(index: int) -> dict[str, Any]:
    """The looks of the retriever of an index, the same in every chart."""
    return {
        "color": _LIGHT[COLOURS[index % len(COLOURS)]],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _DASHES[index // len(COLOURS) % len(_DASHES)],
    }


def _legend(figure: Figure, names: list[str], *, bars: bool = False) -> None:
    labels = [shorten(name, _LONGEST_LABEL) for name in names]
    looks = [_line(index) for index in range(len(names))]
    if bars:
        looks = [{"color": look["color"], "marker": "s", "linestyle": "none"} for look in looks]
    columns = max(1, min(4, len(names), 76 // (max(map(len, labels)) + 7)))
    handles = [Line2D([], [], **look) for look in looks]
    figure.legend(
        handles, labels, loc="outside lower left", ncols=columns, fontsize=8, handlelength=1.6,
        columnspacing=1.4, borderpad=0.2,
    )  # fmt: skip
