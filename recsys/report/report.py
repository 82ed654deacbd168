"""A run, or several side by side, as one HTML page that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from feature_store.durable import read_json
from feature_store.errors import DataError
from recsys.evaluation.ceiling import sentences
from recsys.evaluation.item_facts import COLD_ITEM
from recsys.evaluation.user_slices import COLD_USER
from recsys.figure import Figure
from recsys.report import charts
from recsys.report.charts import Chart, Estimate, Series, estimate
from recsys.report.comparison import Comparison
from recsys.report.example_users import ExampleUser, example_users
from recsys.report.explained import explained
from recsys.report.explained_words import explained_words
from recsys.report.index_choice import index_choices
from recsys.report.page import write_page
from recsys.runs.finished import Run, measured
from recsys.runs.verdict import VERDICT, sentence

GROUPS: dict[str, dict[str, str]] = {
    "Accuracy of the lists": {
        "Precision": "relevant items among the first k, over k",
        "Recall": "relevant items among the first k, over all the user's relevant items",
        "HR": "share of users with any relevant item among the first k",
        "F1": "harmonic mean of a user's precision and recall, averaged over users",
        "F1OfMeans": "harmonic mean of the averaged precision and the averaged recall",
        "NDCG": "discounted gain of the list over that of the ideal list",
        "MRR": "one over the rank of the first relevant item, 0 beyond k",
        "ListAUC": "chance that a chosen item of a list stands above one that was passed over, "
        "averaged over lists",
        "MAP": "mean of the precision at the ranks of the relevant items",
    },
    "Beyond accuracy": {
        "Coverage": "share of the candidates recommended to anyone",
        "Gini": "inequality of exposure: 0 all items alike, 1 one item everywhere",
        "Novelty": "mean self-information of the items shown, in bits",
        "CategoryDiversity": "mean distance between two items of a list, by their categories",
        "VectorDiversity": "mean distance between two items of a list, by vectors learned from "
        "who chose them",
        "StratifiedRecall": "recall in which the targets that are popular weigh less",
    },
    "Money": {
        "GMV": "money of the test purchases found among the first k, a user's mean",
        "GMVCapture": "money of the test purchases found among the first k, over that of all",
        "Profit": "money of the targets in the list less what the goods cost the seller",
        "ProfitCapture": "profit found among the first k, over that of all profitable purchases",
        "PriceNDCG": "NDCG whose gains are the money of the purchases",
        "ExpectedRevenue": "price times predicted probability of purchase, summed over the list",
    },
    "Predictions": {
        "AUC": "chance that a random positive is scored above a random negative",
        "GAUC": "chance that a random positive of a user is scored above a random negative of the "
        "same user, averaged over users by their rows",
        "LogLoss": "mean negative log-likelihood, in nats: less is better",
        "NormalisedEntropy": "log loss over that of always predicting the mean rate: below 1",
        "Calibration": "positives predicted over positives seen: 1 is right on average",
        "ECE": "mean gap between prediction and rate, over ten bins of predictions",
    },
}
"""What every metric means in a line, in the groups and the order in which they are shown."""
SLICINGS: dict[str, tuple[str, str]] = {
    "activity": ("length of history", "Quarters of the users by events in their history."),
    "users": ("cold and warm users", f"Cold: under {COLD_USER} events in the history."),
    "popularity": (
        "popularity of target",
        "Head, middle and tail take a third of all events each.",
    ),
    "items": ("cold and warm targets", f"Cold: under {COLD_ITEM} events before the test."),
}
"""Slicings that are no column: what people call them, and what is in their slices."""
_OTHER = "Other figures"
_BEST = {"Accuracy of the lists", "Money"}  # elsewhere more is not simply better
_K = 10
_NONE = "\N{EN DASH}"
_VALUE = ("value", "low", "high")  # columns of a comparison's frame
_MINUS = ("difference", "difference_low", "difference_high")


@dataclass(frozen=True)
class Cell:
    """A figure as it is shown, with the decimals of its whole column; `sign` is + or nothing."""

    name: str
    estimate: Estimate
    decimals: int
    sign: str = ""
    best: bool = False

    @property
    def known(self) -> bool:
        """Whether there is such a figure."""
        return math.isfinite(self.estimate.value)

    @property
    def shown(self) -> str:
        """The value."""
        return self._write(self.estimate.value) if self.known else _NONE

    @property
    def interval(self) -> str:
        """The ends of the interval; empty where there is none."""
        _, low, high = self.estimate
        if not (self.known and math.isfinite(low) and math.isfinite(high)):
            return ""
        to = "\N{EN DASH}" if low >= 0 else " to "
        return f"{self._write(low)}{to}{self._write(high)}"

    def _write(self, value: float) -> str:
        return f"{value:{self.sign},.{self.decimals}f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Table:
    """Figures with one row a name and one column a figure."""

    title: str
    names: list[str]
    rows: dict[str, list[Cell]]
    users: dict[str, int | None] | None = None


@dataclass(frozen=True)
class Difference:
    """A run beside the first, or a baseline beside its model: its figure, the difference, and the
    paired test of it."""

    run: str
    value: Cell
    minus_first: Cell
    p: float
    p_holm: float

    @property
    def significant(self) -> bool:
        """Whether the corrected test says so at the 5 % level."""
        return self.p_holm < 0.05


@dataclass(frozen=True)
class SliceFamily:
    """The slices of a family: bars of one figure, and all figures of every retriever."""

    name: str
    title: str
    chart: Chart | None
    tables: list[Table]


def write_report(folder: Path) -> Path:
    """Write `<folder>/report.html` and its charts as `<folder>/plots/*.png`; returns the page.

    Reads what evaluation left: metrics.json, per_user and, where they are there, training.json,
    the examples, the catalogue, and the manifest of a bundle that promises a recall. Raises
    DataError for a folder that was not evaluated.
    """
    run = Run(folder)
    kind, series = measured(run.results)
    model = next(iter(series))
    page = _page(
        series,
        run.results,
        training=_training({model: run}),
        metric=_validation_metric(run),
        examples=example_users({model: (run, model)}) if kind == "retrievers" else [],
    )
    indices = index_choices(run)
    page["charts"]["index"] = [choice.chart for choice in indices]
    for chart in page["charts"]["index"]:
        chart.sign(page["protocol"])
    _save_charts(page["charts"], run.files.plots)
    outcome = run.results.get(VERDICT)
    own: dict[str, Any] = {
        "run": run.results,
        "origins": {name: {} for name in series},
        "verdict": sentence(model, outcome) if outcome else None,
        "ceiling": sentences(run.results),
        "model": model,
        "explained": explained(run),
        "words": explained_words(run, model) if kind == "retrievers" else [],
        "index_choices": indices,
    }
    if outcome:
        own["differences"] = {outcome["metric"]: _against(outcome)}
    return _write(run.files.report, "report.html", page | own)


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write runs side by side as one page, with their differences and tests; returns `path`.

    Raises DataError where `path` is a folder.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file, such as {path / 'comparison.html'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    first = comparison.runs[0].run
    series = {contender.label: contender.summary for contender in comparison.runs}
    page = _page(
        series,
        first.results,
        training=_training({c.label: c.run for c in comparison.runs if c.is_run_s_own}),
        metric=_validation_metric(first),
        examples=[]
        if comparison.runs[0].ranks_rows
        else example_users({c.label: (c.run, c.model) for c in comparison.runs}),
    )
    origins = {
        c.label: {c.kind.capitalize(): c.model, "Seed": c.run.results["seed"], "Run": c.folder}
        for c in comparison.runs
    }
    own = {"comparison": comparison, "differences": _differences(comparison), "origins": origins}
    return _write(path, "comparison.html", page | own)


def _validation_metric(run: Run) -> str:
    default = f"NDCG@{_K}"
    if "ranker" in run.config:
        default = "MRR" if run.config["split"]["candidates"] == "shown" else "AUC"
    return str(run.config.get("trainer", {}).get("metric", default))


def _differences(comparison: Comparison) -> dict[str, list[Difference]]:
    """Metric -> one row a run, the first without a difference."""
    differences = {}
    for metric, rows in comparison.frame.groupby("metric", sort=False):
        decimals = _decimals([v for v in rows["value"] if math.isfinite(v)])
        differences[str(metric)] = [
            Difference(
                run=row["run"],
                value=Cell(str(metric), Estimate(*(row[n] for n in _VALUE)), decimals),
                minus_first=Cell(str(metric), Estimate(*(row[n] for n in _MINUS)), decimals, "+"),
                p=row["p"],
                p_holm=row["p_holm"],
            )
            for row in rows.to_dict("records")
        ]
    return differences


def _against(outcome: dict[str, Any]) -> list[Difference]:
    """One row a baseline, from a verdict: its figure, and how far the model is from it."""
    metric = outcome["metric"]
    decimals = _decimals([result["value"] for result in outcome["against"].values()])
    unknown = math.nan
    return [
        Difference(
            run=name,
            value=Cell(metric, Estimate(result["value"], unknown, unknown), decimals),
            minus_first=Cell(
                metric,
                Estimate(result["difference"], result["low"], result["high"]),
                decimals,
                "+",
            ),
            p=result["p"],
            p_holm=result["p_holm"],
        )
        for name, result in outcome["against"].items()
    ]


def _page(
    series: Series,
    results: Mapping[str, Any],
    *,
    training: Mapping[str, Mapping[str, Any]],
    metric: str,
    examples: Sequence[ExampleUser],
) -> dict[str, Any]:
    """What both pages show of named retrievers."""
    by_k = _tables(series)
    slices = _slices(series)
    curves = [charts.loss(training), charts.validation(training, metric)] if training else []
    over = {name: charts.over_k(series, name, what) for name, what in _CURVES.items()}
    drawn = {
        "predictions": [charts.calibration(series)],
        "stages": [charts.funnel(series)],
        "lists": [over["Recall"], over["NDCG"], charts.coverage_against_recall(series)],
        "money": [over["GMVCapture"], over["ProfitCapture"]],
        "training": curves,
        "slices": [family.chart for family in slices],
    }
    kept = {key: [c for c in section if c is not None] for key, section in drawn.items()}
    for chart in chain(*kept.values()):
        chart.sign(results["protocol"])
    return {
        "protocol": results["protocol"],
        "fingerprint": results["protocol_fingerprint"],
        "protocol_parts": results.get("protocol_parts") or {},
        "series": series,
        "indices": {name: index for index, name in enumerate(series)},
        "tables": by_k,
        "default_k": _K if _K in by_k else next(iter(by_k), None),
        "slices": slices,
        "charts": kept,
        "examples": examples,
        "meanings": {n: text for group in GROUPS.values() for n, text in group.items()},
        "measured": {
            Figure.parse(n).name for summary in series.values() for n in summary["metrics"]
        },
    }


_CURVES = {
    "Recall": "relevant items found",
    "NDCG": "relevant items found, the first ranks counting most",
    "GMVCapture": "share of the money of all test purchases found",
    "ProfitCapture": "share of the profit of all profitable test purchases found",
}


def _tables(series: Series) -> dict[int | None, list[Table]]:
    """k -> tables of all figures at k, one a group; None -> figures without a cut-off."""
    every = dict.fromkeys(n for summary in series.values() for n in summary["metrics"])
    ks = sorted({Figure.parse(n).k for n in every}, key=lambda k: math.inf if k is None else k)
    group_of = {name: title for title, group in GROUPS.items() for name in group}
    order = list(group_of)
    tables: dict[int | None, list[Table]] = {}
    for k in ks:
        here = [name for name in every if Figure.parse(name).k == k]
        for title in (*GROUPS, _OTHER):
            names = [n for n in here if group_of.get(Figure.parse(n).name, _OTHER) == title]
            if title in GROUPS:
                names.sort(key=lambda n: order.index(Figure.parse(n).name))
            if names:
                table = _table(title, series, names, mark_best=title in _BEST)
                tables.setdefault(k, []).append(table)
    return tables


def _table(
    title: str,
    rows: Mapping[str, Mapping[str, Any]],
    names: list[str],
    *,
    mark_best: bool = False,
    users: dict[str, int | None] | None = None,
) -> Table:
    columns = []
    for name in names:
        estimates = [estimate(row, name) for row in rows.values()]
        values = [e.value for e in estimates if math.isfinite(e.value)]
        best = max(values) if mark_best and len(rows) > 1 and values else math.nan
        decimals = _decimals(values)
        columns.append([Cell(name, e, decimals, best=e.value == best) for e in estimates])
    cells = zip(*columns, strict=True)
    return Table(title, names, dict(zip(rows, map(list, cells), strict=True)), users)


def _decimals(values: Sequence[float]) -> int:
    """Decimals for a column: four for shares, none for thousands."""
    largest = max(map(abs, values), default=0.0)
    return 4 if largest <= 1 else 2 if largest < 100 else 1 if largest < 1000 else 0


def _slices(series: Series) -> list[SliceFamily]:
    every = dict.fromkeys(f for summary in series.values() for f in summary.get("slices") or {})
    families = []
    for family in every:
        labels = charts.slice_labels(series, family)
        slices = {
            label: {
                name: (summary.get("slices") or {}).get(family, {}).get(label, {})
                for name, summary in series.items()
            }
            for label in labels
        }
        summaries = [summary for by_name in slices.values() for summary in by_name.values()]
        names = list(dict.fromkeys(n for s in summaries for n in s.get("metrics") or {}))
        if not names:
            continue
        headline = next((n for n in names if Figure.parse(n).name == "Recall"), names[0])
        tables = [
            _table(label, by_name, names, users={n: s.get("users") for n, s in by_name.items()})
            for label, by_name in slices.items()
        ]
        title, note = SLICINGS.get(family, (family, ""))
        chart = charts.by_slice(series, family, headline, title=title, note=note)
        families.append(SliceFamily(family, title, chart, tables))
    return families


def _training(runs: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    """The training records of those that were trained."""
    paths = {name: run.files.training_record for name, run in runs.items()}
    records = {name: read_json(path) for name, path in paths.items()}
    return {name: record for name, record in records.items() if record.get("history")}


def _save_charts(drawn: Mapping[str, Sequence[Chart]], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("slice_*.png"):  # maybe of a slice that is no longer measured
        stale.unlink()
    for chart in chain(*drawn.values()):
        chart.save(folder)


def option_text(value: Any) -> str:
    """An option's value; of a kind with options its name, and they behind it."""
    if not isinstance(value, Mapping):
        return str(value)
    others = ", ".join(f"{n} {option_text(v)}" for n, v in value.items() if n != "name")
    return " ".join(part for part in (value.get("name"), f"({others})" if others else "") if part)


def _p_value(p: float) -> str:
    return _NONE if math.isnan(p) else f"{p:.4f}" if p >= 0.00005 else "< 0.0001"


def _write(path: Path, template: str, page: Mapping[str, Any]) -> Path:
    return write_page(path, template, page, option=option_text, p_value=_p_value)
