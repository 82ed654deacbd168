"""The report of a run and of a comparison: its figures are the run's, and it needs nothing else."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
from markupsafe import escape
from PIL import Image

from browser import chromium, open_page
from conformance import bundle_of, fresh, shape_of, small
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from planted import SCHEMA, write_log, write_planted
from recsys.data.examples import Examples
from recsys.report.comparison import compare
from recsys.report.example_users import example_requests, example_users
from recsys.report.explained import Summand
from recsys.report.explained_words import ExplainedWords, Marked, ShownSide, explained_words
from recsys.report.report import option_text, write_comparison, write_report
from recsys.runs.build import fit
from recsys.runs.finished import Run
from recsys.runs.weights import training_of
from recsys.serving.index.options import ExactConfig, IVFConfig, PromiseConfig
from recsys.serving.index.record import MeasuredIndex, PromiseRecord
from recsys.serving.manifest import About, GeneratorRecord, IndexRecord, Manifest

in_browser = pytest.mark.skipif(
    chromium() is None, reason="no browser found: apt-get install chromium, or make browser"
)
NASTY = '<script>alert("x")</script> & $5 to $10 Übermaß 東京'
KS, NONE = (1, 10, 20), "\N{EN DASH}"


# A run's folder, as evaluation leaves it


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    """The planted log; one title is hostile and one very long."""
    log = write_log(tmp_path_factory.mktemp("report") / "log")
    path = log.folder / "items.parquet"
    items = pq.ParquetFile(path).read()
    titles = items["title"].to_pylist()
    titles[7], titles[14] = NASTY, "long " * 200
    place = items.schema.get_field_index("title")
    pq.write_table(items.set_column(place, items.schema.field(place), pa.array(titles)), path)
    return log


@pytest.fixture(scope="module")
def run(log: EventLog) -> Path:
    """A run of two retrievers over the planted log, with all that a run can have."""
    return write_run(log.folder.parent / "full", log)


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    """The run's report, written where another has been."""
    (run / "plots").mkdir()
    (run / "plots" / "slice_gone.png").touch()
    (run / "plots" / "tuning.png").touch()
    return write_report(run).read_text()


def write_run(folder: Path, log: EventLog, **changed: Any) -> Path:
    """An evaluated run: the model finds every fifth user's target, the baseline none."""
    examples = write_planted(log, folder / "examples", "sequences")
    config = {
        "name": folder.name,
        "store": str(log.folder),
        "data": {"source": "synthetic"},
        "retriever": {"name": "sasrec"},
        "trainer": {"metric": "NDCG@10"},
    }
    (folder / "config.toml").write_text(tomli_w.dumps(config))
    history = [{"epoch": e, "loss": 4 / e, "NDCG@10": 0.1 * e, "seconds": 1.0} for e in (1, 2, 3)]
    record = {"best_epoch": 2, "best": 0.2, "history": history, "refit_history": history[:2]}
    (folder / "training.json").write_text(json.dumps(record))
    (folder / "per_user").mkdir()
    users = 0
    for name in ("sasrec", "popularity"):
        table = per_user(examples, finds=name == "sasrec")
        users = table.num_rows
        pq.write_table(table, folder / "per_user" / f"{name}.parquet")
    found = {"sasrec": retriever(0.31, users), "popularity": retriever(0.07, users)}
    results = {
        "name": folder.name,
        "seed": 1,
        "protocol": "leave_one_out",
        "protocol_fingerprint": "0123456789abcdef",
        "protocol_parts": {"data": "00ff", "split.seen": "include", "split.min_label": None},
        "candidates": 40,
        "events": {"train": 700, "validation": 114, "test": 114},
        "data": {"source": "synthetic", "users": 120, "items": 42},
        "retrievers": found,
    }
    (folder / "metrics.json").write_text(json.dumps(results | changed))
    return folder


def per_user(examples: Examples, *, finds: bool) -> pa.Table:
    requests = pq.read_table(examples.folder / "test.parquet", partitioning=None)
    users = examples.vocabulary("user_id").decode(requests["user_id"].to_numpy())
    decode = examples.vocabulary("item_id").decode
    targets = [decode(np.array(t)).to_pylist() for t in requests["target"].to_pylist()]
    others = [f"i{item:02d}" for item in range(30)]
    lists = [
        [t[0], *(o for o in others if o != t[0])] if finds and place % 5 == 0
        else [o for o in others if o not in t]
        for place, t in enumerate(targets)
    ]  # fmt: skip
    return pa.table(
        {
            "user": users,
            "history": [len(h) for h in requests["history"].to_pylist()],
            "targets": [len(t) for t in targets],
            "recommended": lists,
            "NDCG@10": [float(finds and place % 5 == 0) for place in range(len(lists))],
        }
    )


def retriever(level: float, users: int) -> dict[str, Any]:
    values: dict[str, float | None] = {}
    for k in KS:
        values |= {f"{name}@{k}": level * k**0.2 for name in ("Recall", "NDCG", "Coverage")}
        values |= {f"GMVCapture@{k}": level * k**0.1, f"GMV@{k}": -1234.5 * level / k}
        values |= {f"Novelty@{k}": 7 + level, f"CategoryDiversity@{k}": None if k == 1 else 0.5}
    bounds = {n: [None, None] if v is None else [v - 0.01, v + 0.01] for n, v in values.items()}
    part = {"Recall@10": level, "NDCG@10": level / 2}
    inside = {n: [v - 0.02, v + 0.02] for n, v in part.items()}

    def slices(labels: dict[str, int]) -> dict[str, Any]:
        return {name: {"users": n, "metrics": part, "ci95": inside} for name, n in labels.items()}

    activity = slices({"6-60 events": 104, "2-5 events": 10})
    genre = slices({f"$ <{n}> $": 1 + n for n in range(9)})
    head = {"users": 50, "metrics": {"Recall@10": 0.5}, "ci95": {"Recall@10": [0.4, 0.6]}}
    return {
        "metrics": values,
        "ci95": bounds,
        "users": users,
        "without_history": 0,
        "without_targets": 6,
        "slices": {"activity": activity, "genre": genre, "popularity": {"head": head}},
        "seconds": {"fit": 1.25, "evaluate": 0.5},
        "config": {"name": "sasrec", "width": 50},
    }


# The page, as a program reads it


class Page(HTMLParser):
    """Elements with their attributes and text, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text: list[str] = []
        self.elements.append((tag, dict(attrs), text))
        if tag not in ("meta", "link", "input", "br", "path", "use"):
            self._open.append(text)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "link", "input", "br", "path", "use") and self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1].append(data)

    def figures(self) -> dict[tuple[str, str], list[tuple[dict[str, str | None], str]]]:
        """(retriever, metric) -> attributes and text of its cells."""
        found: dict[tuple[str, str], list[tuple[dict[str, str | None], str]]] = {}
        for tag, attributes, text in self.elements:
            if tag == "td" and "data-metric" in attributes:
                key = str(attributes["data-retriever"]), str(attributes["data-metric"])
                found.setdefault(key, []).append((attributes, "".join(text).strip()))
        return found


def check_figures(page: Page, results: dict[str, Any]) -> None:
    """Every figure of the run is on the page, whole in an attribute and rounded in the text."""
    shown = page.figures()
    for name, found in results["retrievers"].items():
        for metric, value in found["metrics"].items():
            attributes, text = shown[name, metric][0]
            if value is None:
                assert "data-value" not in attributes and text == NONE
                continue
            decimals = len(text.partition(".")[2])
            assert float(attributes["data-value"] or "nan") == value
            assert float(text.replace("\N{MINUS SIGN}", "-").replace(",", "")) == round(
                value, decimals
            )
            low, high = (float(attributes[f"data-{end}"] or "nan") for end in ("low", "high"))
            assert [low, high] == found["ci95"][metric]


def check_alone(html: str) -> None:
    """Nothing on the page points to something outside it."""
    assert "http:" not in html and "https:" not in html
    for tag, attributes, _ in Page(html).elements:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)


def test_every_figure_of_the_run_is_on_the_page(run: Path, html: str) -> None:
    assert (run / "report.html").read_text() == html
    page = Page(html)
    results = json.loads((run / "metrics.json").read_text())
    check_figures(page, results)
    check_alone(html)
    cells = page.figures()["sasrec", "Recall@10"]
    assert len(cells) == 1 + 2 + 9 + 1  # whole and in all slices, also those that are not drawn
    assert html.index("2-5 events") < html.index("6-60 events")
    assert "8 slices with most users; 1 more in the tables" in html
    for text in ("leave_one_out", "0123456789abcdef", "114", "width"):
        assert text in html
    assert len(html) < 3e6


@in_browser
def test_a_browser_without_network_shows_it_whole(run: Path, html: str, tmp_path: Path) -> None:
    probe = """<script>addEventListener("load", () => {
      const visible = e => { const b = e.getBoundingClientRect(); return b.width * b.height > 0 };
      const pane = k => getComputedStyle(document.querySelector(".pane-" + k)).display;
      const before = pane(10) + " " + pane(20);
      document.getElementById("k-20").click();
      document.documentElement.dataset.probe = JSON.stringify({
        drawn: [...document.querySelectorAll("figure svg")].map(visible),
        loaded: performance.getEntriesByType("resource").map(e => e.name),
        images: [...document.images].map(i => i.naturalWidth),
        panes: before + " " + pane(10) + " " + pane(20),
        wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      })})</script>"""
    (tmp_path / "probed.html").write_text(html.replace("</body>", probe + "</body>"))
    dom = open_page(tmp_path / "probed.html", "--window-size=500,900")
    page = Page(dom)
    check_figures(page, json.loads((run / "metrics.json").read_text()))
    seen = json.loads(str(page.elements[0][1]["data-probe"]))
    assert len(seen["drawn"]) == 9 and all(seen["drawn"])
    assert seen["loaded"] == [] and all(width > 0 for width in seen["images"])
    assert seen["panes"] == "block none none block"  # k = 10, then k = 20 once it is chosen
    assert seen["wide"] <= 0  # a phone scrolls tables, not the page


def test_pictures_lie_beside_it(run: Path, html: str) -> None:
    others = {"tuning.png"}  # not the report's to remove
    drawn = {path.name for path in (run / "plots").iterdir()} - others
    assert drawn == {
        "recall_over_k.png",
        "ndcg_over_k.png",
        "coverage_against_recall.png",
        "gmvcapture_over_k.png",
        "training_loss.png",
        "validation.png",
        "slice_activity.png",
        "slice_genre.png",
        "slice_popularity.png",
    }
    for name in drawn:
        with Image.open(run / "plots" / name) as image:
            assert image.width > 500
            assert len(image.getcolors(1 << 24) or ()) > 2  # not a blank sheet


def test_ten_users_are_shown_with_what_they_did_and_got(run: Path, html: str) -> None:
    articles = re.findall(r'<article class="user" data-user="(\d+)">(.*?)</article>', html, re.S)
    assert len(articles) == 10 == len({user for user, _ in articles})
    lists = pq.read_table(run / "per_user" / "sasrec.parquet").to_pandas().set_index("user")
    hits, lengths = 0, []
    for user, text in articles:
        one = lists.loc[int(user)]
        _, history, targets, top = text.split("<section")
        shown = [re.findall(r'title="(i\d\d)"', part) for part in (history, targets, top)]
        assert shown[2] == list(one["recommended"][:10])
        assert len(shown[0]) == min(10, one["history"])
        assert ('class="hit"' in top) == (shown[1][0] in shown[2]) == (one["NDCG@10"] == 1)
        hits += one["NDCG@10"] == 1
        lengths.append(one["history"])
    assert hits > 0
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]
    named = re.findall(r'title="i(\d\d)">Item number (\d+)<', html.replace("\n", ""))
    assert named and all(int(one) == int(number) for one, number in named)


def test_the_seed_decides_who_is_shown(log: EventLog, html: str, tmp_path: Path) -> None:
    def users(folder: Path) -> list[str]:
        return [one.id for one in example_users({"sasrec": (Run(folder), "sasrec")})]

    again, other = (write_run(tmp_path / str(seed), log, seed=seed) for seed in (1, 2))
    assert users(again) == re.findall(r'data-user="(\d+)"', html) != users(other)


def test_hostile_and_long_titles_stay_text(html: str) -> None:
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; $5 to $10 Übermaß 東京" in html
    assert "long " * 30 not in html
    assert "&lt;3&gt;" in html and "<3>" not in html  # names of slices, drawn and in tables


HOSTILE = (
    *('"><img src=x onerror=alert(1)>', "</script><svg onload=alert(2)>", "javascript:alert(3)"),
    *("{{ 7 * 191 }}", "{% raw %}", "]]></style><b>bold", "<!--x", "' autofocus onfocus='alert(4)"),
)


class Seen(HTMLParser):
    """Which elements a page has, by their attributes' names, and all its words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.kinds, self.words = set[tuple[str, ...]](), ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.kinds.add((tag, *(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_titles_become_no_elements(log: EventLog, html: str, tmp_path: Path) -> None:
    """As a browser understands the page, where there is one."""
    folder = tmp_path / "log"
    shutil.copytree(log.folder, folder)
    items = pq.ParquetFile(folder / "items.parquet").read()
    place = items.schema.get_field_index("title")
    titles = pa.array([HOSTILE[row % len(HOSTILE)] for row in range(items.num_rows)])
    pq.write_table(
        items.set_column(place, items.schema.field(place), titles), folder / "items.parquet"
    )
    page = write_report(write_run(tmp_path / "run", EventLog.open(folder)))
    seen, wanted = Seen(page.read_text()), Seen(html).kinds
    assert seen.kinds <= wanted
    for title in HOSTILE:
        assert title in seen.words
    if chromium() is not None:
        assert Seen(open_page(page)).kinds - wanted <= {("tbody",)}


def test_the_baselines_stand_beside_the_model_with_their_tests(
    log: EventLog, tmp_path: Path
) -> None:
    against = {
        "popularity": {
            "value": 0.07,
            "difference": 0.24,
            "low": 0.2,
            "high": 0.28,
            "p": 0.0004,
            "p_holm": 0.0312,
        }
    }
    verdict = {
        "metric": "NDCG@10",
        "value": 0.31,
        "users": 100,
        "beats_baselines": True,
        "best_baseline": "popularity",
        "against": against,
    }
    html = write_report(write_run(tmp_path / "run", log, verdict=verdict)).read_text()
    section = html[html.index('<section id="differences">') :].split("</section>")[0]
    for shown in ("Against the baselines", "popularity", "+0.2400", "0.0312", "sasrec minus it"):
        assert shown in section
    assert 'class="best">+0.2400' in section  # the corrected test says so
    assert '<a href="#differences">' in html


def test_a_run_with_the_least_that_a_run_can_have(log: EventLog, tmp_path: Path) -> None:
    one = {
        "metrics": {"Recall@5": 0.25, "NDCG@5": math.nan, "Gini@5": None},
        "ci95": {"Recall@5": [0.2, 0.3], "NDCG@5": [math.nan, math.nan], "Gini@5": None},
        "users": 3,
    }
    folder = write_run(tmp_path / "run", log, retrievers={"theirs": one}, protocol_parts={})
    (folder / "training.json").unlink()
    for path in (folder / "per_user").iterdir():
        path.unlink()
    page = Page(write_report(folder).read_text())
    shown = {key: cells[0][1] for key, cells in page.figures().items()}
    assert shown == {
        ("theirs", "Recall@5"): "0.2500",
        ("theirs", "NDCG@5"): NONE,
        ("theirs", "Gini@5"): NONE,
    }
    ids = {attributes.get("id") for _, attributes, _ in page.elements}
    assert "settings" in ids and not ids & {"training", "slices", "users"}


def test_long_histories_of_items_without_titles_or_order(log: EventLog, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", log)
    schema = SCHEMA.model_copy(update={"title": None, "clock": "none"})
    schema.save(folder / "examples" / "schema.json")
    path = folder / "examples" / "test.parquet" / "00000.parquet"
    requests = pq.read_table(path, partitioning=None)
    place = requests.schema.get_field_index("history")
    field = requests.schema.field(place)
    long = [[1] * 1990 + list(range(2, 12))] * requests.num_rows
    pq.write_table(requests.set_column(place, field, pa.array(long, field.type)), path)
    html = write_report(folder).read_text()
    assert html.count("History, in no known order (10 of 2,000)") == 10
    assert '<ol start="1991">' in html
    assert ">i10</li>" in html and "Item number" not in html


def write_promise(run: Path, training: str | None) -> PromiseRecord:
    """A bundle's manifest, whose index was chosen by promise."""

    def measured(config: IVFConfig | ExactConfig, recall: float, items: int) -> MeasuredIndex:
        return MeasuredIndex(
            config=config,
            items=items,
            recall=recall,
            queries_per_second=4321.0 * config.probes if isinstance(config, IVFConfig) else 7.0,
            milliseconds=0.25,
            bytes_per_item=72.5,
        )

    tried = (
        measured(ExactConfig(), 1.0, 1500),
        measured(IVFConfig(probes=1), 0.75, 1500),
        measured(IVFConfig(probes=2), 0.985, 1500),
    )
    record = PromiseRecord(
        promise=PromiseConfig(recall=0.98, memory_mb=12),
        chosen=measured(IVFConfig(probes=2), 0.9812, 99_000),
        candidates=tried,
        kept_recall=0.98,
        machine="a processor",
        threads=1,
    )
    part = GeneratorRecord(
        about=About(run="full", model="sasrec", training=training),
        protocol="leave_one_out",
        protocol_fingerprint="f",
        train_roles=(),
        inputs=(),
        embeddings=None,
        quantisation=None,
        needs_history=True,
        space="s",
        width=4,
        candidates=99_000,
        items="vectors",
        merge="score",
        index=IndexRecord(config=record.chosen.config, recall_at_100=0.9, promise=record),
    )
    bundle = run / "bundle"
    bundle.mkdir(exist_ok=True)
    Manifest(created="now", vocabularies={}, parts={"generator": part}, versions={}, files={}).save(
        bundle
    )
    return record


@pytest.fixture(scope="module")
def reading(log: EventLog) -> Path:
    """A run whose bundle finds items by words."""
    folder = write_run(log.folder.parent / "reading", log)
    (folder / "training.json").unlink()  # it is fitted where it is used
    examples = write_planted(log, log.folder.parent / "read", shape_of("text_knn"))
    model = fresh(small("text_knn", attributes=("title", "genre")), examples)
    fit(model, "text_knn", examples)
    bundle_of(model, examples, log, folder / "bundle")
    return folder


@pytest.fixture(scope="module")
def words(reading: Path) -> tuple[list[ExplainedWords], str]:
    """Whose answers are explained, and the page, where the first of them has hostile words."""
    told = explained_words(Run(reading), "sasrec")
    own = ShownSide([(NASTY, [Marked(NASTY, 0.25, 0.5)])], [Summand(NASTY, 0.25, 1)])
    shown = [replace(told[0], title=NASTY, own=own), *told[1:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.report.report.explained_words", lambda run, model: shown)
        return told, write_report(reading).read_text()


def test_words_of_history_and_item_are_shown_with_what_they_add(
    reading: Path, words: tuple[list[ExplainedWords], str]
) -> None:
    told, html = words
    lists = {str(user): items for user, _, items in example_requests(Run(reading), "sasrec")}
    assert len(told) == 3
    for each in told:
        assert each.item == lists[each.user][0]
        for side in (each.history, each.own):
            assert sum(part.value for part in side.summands) == pytest.approx(each.score)
            every = [word for _, words in side.items for word in words]
            assert sum(word.value for word in every) == pytest.approx(each.score)
            deepest = max(every, key=lambda word: word.value)
            assert deepest.shade == 1 and side.summands[0].name == deepest.text
        assert any("Item number" in title for title, _ in each.history.items)
    section = html[html.index('<section id="words">') :]
    section = section[: section.index("</section>")]
    assert "<script>" not in section and section.count(str(escape(NASTY[:30]))) >= 3
    assert section.count("<article") == 3 and '<a href="#words">' in html
    assert f'style="--shade: 28%" title="+0.2500">{escape(NASTY[:30])}' in section
    for each in told[1:]:
        for side in (each.history, each.own):
            for _, said in side.items:
                for shown in said:
                    assert f'title="{shown.value:+.4f}">{escape(shown.text)}</mark>' in section


@in_browser
def test_long_words_break_where_the_page_is_narrow(
    words: tuple[list[ExplainedWords], str], tmp_path: Path
) -> None:
    framed = f'<iframe srcdoc="{escape(words[1])}" width="360" height="700"></iframe>'
    probe = """<script>addEventListener("load", () => {
      const page = document.querySelector("iframe").contentDocument.documentElement;
      document.documentElement.dataset.wide = page.scrollWidth - page.clientWidth;
    })</script>"""
    (tmp_path / "framed.html").write_text(f"<!doctype html>{framed}{probe}")
    assert 'data-wide="0"' in open_page(tmp_path / "framed.html")


def test_words_of_another_training_are_not_shown(reading: Path) -> None:
    """Nor those of a bundle that cannot be read, which is no fault of the report."""
    record = reading / "training.json"
    record.write_text(json.dumps({"history": [], "best_epoch": 1}))
    assert explained_words(Run(reading), "sasrec") == []
    record.unlink()
    (reading / "bundle" / "manifest.json").write_text("{}")
    assert explained_words(Run(reading), "sasrec") == []


def test_an_index_by_promise_is_shown_with_all_that_was_measured(
    log: EventLog, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "promising", log)
    write_promise(run, training_of(Run(run).files))
    html = write_report(run).read_text()
    section = html[html.index('<section id="index">') :]
    assert "recall@10 of 0.98 within 12 MB" in section
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", section[: section.index("</table>")])
    cells = [re.sub(r"<[^>]+>", "|", row).replace("||", "|").split("|")[1:-1] for row in rows]
    assert cells[1:] == [
        ["exact", "1,500", "1.0000", "7", "0.250", "72.5"],
        ["ivf of flat, 1 probes", "1,500", "0.7500", "4,321", "0.250", "72.5"],
        ["ivf of flat, 2 probes", "1,500", "0.9850", "8,642", "0.250", "72.5"],
        ["ivf of flat, 2 probes", "99,000", "0.9812", "8,642", "0.250", "72.5"],
    ]
    assert (run / "plots" / "index_of_generator.png").exists()
    write_promise(run, "of another training")
    assert '<section id="index">' not in write_report(run).read_text()


def test_a_folder_that_was_not_evaluated_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run"):
        write_report(tmp_path)
    (tmp_path / "config.toml").write_text((run / "config.toml").read_text())
    with pytest.raises(DataError, match="was not evaluated"):
        write_report(tmp_path)


def test_runs_stand_side_by_side(run: Path, tmp_path: Path) -> None:
    comparison = compare([str(run), f"{run}:popularity"], ["NDCG@10"])
    with pytest.raises(DataError, match=r"is a folder.*comparison\.html"):
        write_comparison(comparison, tmp_path)
    path = write_comparison(comparison, tmp_path / "new" / "comparison.html")
    html = path.read_text()
    check_alone(html)
    model, baseline = (one.label for one in comparison.runs)
    figures = json.loads((run / "metrics.json").read_text())["retrievers"]
    check_figures(
        Page(html), {"retrievers": {model: figures["sasrec"], baseline: figures["popularity"]}}
    )
    row = comparison.frame.set_index("run").loc[baseline]
    [shown] = re.findall(rf'<tr data-run="{re.escape(baseline)}".*?</tr>', html, re.S)
    values = [float(value) for value in re.findall(r'data-value="([^"]*)"', shown)]
    assert values == [row["value"], row["difference"]]
    assert f"<td>{row['p']:.4f}</td>" in shown
    assert html.count("<article") == 10
    assert html.count(f'data-list="{baseline}"') == html.count(f'data-list="{model}"') == 10


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (50, "50"),
        ((128,), "(128,)"),
        ({"name": "softmax"}, "softmax"),
        ({"name": "gbce", "calibration": 0.75}, "gbce (calibration 0.75)"),
        (
            {"name": "hstu", "width": 50, "loss": {"name": "bpr"}},
            "hstu (width 50, loss bpr)",
        ),
    ],
)
def test_an_option_reads_as_a_person_would_say_it(value: Any, text: str) -> None:
    assert option_text(value) == text
