"""The tables of docs/results.md: run the committed configs, keep the figures, write the tables.

python -m benchmarks.results --data DATA            all data sets below the folder DATA
python -m benchmarks.results --data DATA --only online_retail
python -m benchmarks.results                        the tables alone, from benchmarks/results/

A run that was stopped goes on where it stood; one that is finished is not repeated unless its
folder is removed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys import open_run, run
from recsys.runs.folder import RunFolder
from recsys.statistics.bootstrap import ratio_intervals

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "benchmarks" / "results"
CONFIGS = Path("pipelines") / "configs"
BEGIN, END = "<!-- results: written by `make results` -->", "<!-- end of results -->"
MODELS = {
    "popularity": "popularity",
    "recent_popularity": "popularity of the last days",
    "personal_popularity": "personal popularity",
    "tifu_knn": "TIFU-kNN",
    "text_knn": "TF-IDF neighbours",
    "item_knn": "ItemKNN",
    "ease": "EASE",
    "gf_cf": "GF-CF",
    "bspm": "BSPM",
    "als": "ALS",
    "bpr": "BPR",
    "sasrec": "SASRec",
    "unisrec": "UniSRec",
    "recformer": "Recformer",
    "hstu": "HSTU",
    "two_tower": "two towers",
    "multi_interest": "multi-interest",
    "graph": "LightGCN",
    "knn_embed": "kNN-Embed, smoothed mixtures",
    "knn_embed_2": "kNN-Embed, mixtures",
    "knn_embed_3": "kNN-Embed, single vectors of BPR",
    "ada_retrieval": "Ada-Retrieval over SASRec",
}
CHEAP = ("popularity", "recent_popularity")  # in every config, and once in a table
PARTS = ("metrics", "ci95", "users", "parameters", "seconds", "config")
COLUMNS = ("cold items", "parameters", "seconds to fit", "users/s", "config", "seed")


@dataclass(frozen=True)
class Entry:
    """A table: its config, where its data lies below DATA, and what it shows.

    `bases` names configs that are run first, because others start from their runs; `also` those
    with the same data and split whose models join the table. `published` are rows of others, for
    reference: name, figures in the order of `figures`.
    """

    config: str
    title: str
    data: str
    figures: tuple[str, ...]
    about: str
    folds: int = 1
    bases: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    published: tuple[tuple[str, ...], ...] = field(default=())


ENTRIES = (
    Entry(
        "movielens_1m_sasrec",
        "MovieLens-1M, leave one out",
        "ml-1m",
        ("HR@10", "NDCG@10", "Coverage@10"),
        "The last event of every user is the test. Timestamps within a session are reconstructed "
        "in this copy of the data: compare with figures on the same file only.",
        published=(
            ("SASRec of RecTools 0.19, same shape and epochs, same file", ".2748", ".1507", ""),
        ),
        also=("movielens_1m_two_tower", "movielens_1m_hstu"),
    ),
    Entry(
        "movielens_1m_global_time",
        "MovieLens-1M, global time",
        "ml-1m",
        ("Recall@20", "NDCG@20", "Coverage@20"),
        "What was rated from 2001 on is the test, for users who had rated before.",
    ),
    Entry(
        "movielens_100k_sasrec",
        "MovieLens-100K, leave one out",
        "ml-100k",
        ("HR@10", "NDCG@10", "Coverage@10"),
        "",
    ),
    Entry(
        "book_crossing",
        "Book-Crossing, random, 5 folds",
        "book-crossing",
        ("Recall@20", "NDCG@20", "Coverage@20"),
        "Ratings of 6 and more; readers and books with at least five of them. The dump has no "
        "times, so there is no recent popularity, and SASRec reads each history in an order that "
        "means nothing. The file used here holds 174,286 of the published 1,149,780 ratings.",
        folds=5,
    ),
    Entry(
        "online_retail",
        "Online Retail, global time",
        "online-retail",
        ("Recall@20", "NDCG@20", "GMV@20", "GMVCapture@20"),
        "Purchases of the last 30 days, items bought before included; GMV@20 in pounds per "
        "customer, net of returns.",
    ),
    Entry(
        "ta_feng",
        "Ta-Feng, next basket",
        "ta-feng",
        ("Recall@10", "NDCG@10", "HR@10", "GMV@20", "Profit@20"),
        "The last basket of customers with at least three, products bought before included, of "
        "products with at least nine lines; money in Taiwan dollars. The filter is ours: the last "
        'two rows were measured on the 13,858 customers and 11,997 products of "A next basket '
        'recommendation reality check" (Li et al., TOIS 2023), whose filter is not known here. '
        "Personal popularity breaks ties among a customer's own products by everybody's: without "
        "that, by the order of ids, its Recall@10 is .1215 here, and at random .1227. TIFU-kNN's "
        "options were found on validation; with those published for this data its Recall@10 was "
        ".1313 here.",
        published=(
            ("popularity, other rows", ".0803", ".0875", ".2489", "", ""),
            ("own, then popularity, other rows", ".1195", ".1069", ".3721", "", ""),
        ),
    ),
    Entry(
        "gowalla",
        "Gowalla, fixed",
        "gowalla",
        ("Recall@20", "NDCG@20", "Coverage@20"),
        "LightGCN's published split. EASE is left out: fitting it to 40,981 items would take "
        "20 GB. The lists have no times and no order. LightGCN is trained by a sampled softmax "
        "here, and the published one by BPR.",
        published=(
            ("LightGCN, published", ".1830", ".1554", ""),
            ("GF-CF, published", ".1849", ".1518", ""),
            ("BSPM, early merge, published", ".1920", ".1597", ""),
        ),
        also=("gowalla_bspm", "gowalla_lightgcn"),
    ),
    Entry(
        "amazon_beauty",
        "Amazon Beauty, leave one out",
        "amazon-beauty",
        ("HR@10", "NDCG@10", "Coverage@10"),
        "The 5-core; the data gives the order of reviews, not their times.",
    ),
    Entry(
        "amazon_beauty_new_items",
        "Amazon Beauty, new items",
        "amazon-beauty",
        ("Recall@10", "NDCG@10", "HR@10"),
        "A tenth of the products are held out whole, and those without events are ranked by their "
        "attributes; with `_text` by their titles, too. TF-IDF neighbours read titles and "
        "attributes alone. Popularity knows nothing of new products: its order is arbitrary.",
        also=(
            "amazon_beauty_new_items_text_knn",
            "amazon_beauty_new_items_unisrec",
            "amazon_beauty_new_items_recformer",
            "amazon_beauty_new_items_text",
        ),
    ),
    Entry(
        "movielens_1m_new_items",
        "MovieLens-1M, new items",
        "ml-1m",
        ("Recall@10", "NDCG@10", "HR@10"),
        "The same of films, by their genres and years, and with `_text` by their titles.",
        also=("movielens_1m_new_items_text_knn", "movielens_1m_new_items_text"),
    ),
    Entry(
        "amazon_beauty_sasrec_text",
        "Amazon Beauty, leave one out, ids and texts",
        "amazon-beauty",
        ("Recall@10", "NDCG@10", "MRR@10"),
        "Trained on training events alone, without a refit. TF-IDF neighbours read titles and "
        "attributes alone, and so does Recformer; `amazon_beauty_sasrec` reads ids alone, "
        "`amazon_beauty_sasrec_text` both.",
        also=(
            *("amazon_beauty_sasrec", "amazon_beauty_text_knn", "amazon_beauty_unisrec"),
            "amazon_beauty_recformer",
        ),
        published=(("SASRec, sampled softmax, transformer_benchmark", ".0921", ".0531", ""),),
    ),
    Entry(
        "amazon_beauty_ada_retrieval",
        "Amazon Beauty, leave one out, without a refit",
        "amazon-beauty",
        ("HR@50", "NDCG@50", "HR@100", "NDCG@100"),
        "As published: trained on training events alone. Five rounds of 20 items. `_bce`: with the "
        "published loss.",
        bases=("amazon_beauty_sasrec", "amazon_beauty_sasrec_bce"),
        also=(
            "amazon_beauty_sasrec",
            "amazon_beauty_sasrec_bce",
            "amazon_beauty_ada_retrieval_bce",
        ),
        published=(
            ("SASRec, published", ".1688", ".0643", ".2262", ".0736"),
            ("Ada-Retrieval over it, published", ".1784", ".0704", ".2339", ".0794"),
        ),
    ),
    Entry(
        "hep_th_knn_embed",
        "HEP-TH citations, random",
        "hep-th",
        ("Recall@10", "Recall@20", "Recall@50", "VectorDiversity@20"),
        "A tenth of every paper's citations, for papers with at least five.",
        bases=("hep_th_bpr",),
    ),
    Entry(
        "gowalla_knn_embed",
        "Gowalla, fixed, over BPR",
        "gowalla",
        ("Recall@10", "Recall@20", "Recall@50", "VectorDiversity@20"),
        "BPR is a weak base here; what is compared is what is made of its vectors.",
        bases=("gowalla_bpr",),
    ),
)


def main() -> None:
    """Run what was asked for, and write all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that holds the data sets")
    parser.add_argument("--only", nargs="*", choices=_configs())
    parser.add_argument("--output", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    for entry in ENTRIES:
        for config in dict.fromkeys((*entry.bases, entry.config, *entry.also)):
            asked = not arguments.only or {config, entry.config} & set(arguments.only)
            if arguments.data and asked:
                measured = measure(config, entry, arguments.data / entry.data, arguments.output)
                _path(config).write_text(json.dumps(measured) + "\n")
    tables = [table(entry) for entry in ENTRIES if _path(entry.config).exists()]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(tables) + f"\n{END}{after}")


def _configs() -> list[str]:
    return [config for e in ENTRIES for config in (*e.bases, e.config, *e.also)]


def _path(config: str) -> Path:
    return RESULTS / f"{config}.json"


def measure(config: str, entry: Entry, data: Path, output: Path) -> dict[str, Any]:
    """The figures of every retriever of a config, over all folds of the entry."""
    folders = []
    for fold in range(entry.folds):
        name = config if entry.folds == 1 else f"{config}_{fold}"
        overrides = [f"data.path={data}", f"output={output}", f"name={name}"]
        if entry.folds > 1:
            overrides.append(f"split.fold={fold}")
        folder = output / name
        if not RunFolder(folder).bundle.exists():  # the last thing that a run writes
            run(ROOT / CONFIGS / f"{config}.toml", *overrides, resume=folder.exists())
        folders.append(folder)
    results = [open_run(folder).results for folder in folders]
    if entry.folds == 1:
        found = results[0]
        retrievers = {
            name: {key: part[key] for key in PARTS if key in part}
            | {label: _slices(part, label) for label in ("cold", "warm")}
            for name, part in found["retrievers"].items()
        }
    else:
        found = results[0] | {"protocol": results[0]["protocol"].rpartition("-")[0]}
        retrievers = {name: _over_folds(name, results, folders) for name in found["retrievers"]}
    keys = ("seed", "protocol", "candidates", "events", "data")
    prints = [result["protocol_fingerprint"] for result in results]
    return {key: found[key] for key in keys} | {"fingerprints": prints, "retrievers": retrievers}


def _slices(part: dict[str, Any], label: str) -> dict[str, Any]:
    """Figures of cold or warm users and items, where there are any."""
    found = {what: part["slices"].get(what, {}).get(label) for what in ("users", "items")}
    return {what: one["metrics"] for what, one in found.items() if one}


def _over_folds(name: str, results: list[dict[str, Any]], folders: list[Path]) -> dict[str, Any]:
    """Means over all (user, fold); whole users, with all their folds, are resampled."""
    parts = [result["retrievers"][name] for result in results]
    users = pd.concat([pd.read_parquet(RunFolder(f).lists_of(name)) for f in folders])
    columns = [c for c in users.columns if "@" in c and "|" not in c]
    by_user = users.groupby("user")[columns]
    sums, counts = by_user.sum().to_numpy(), by_user.count().to_numpy().astype(float)
    low, high = ratio_intervals(sums, counts)
    metrics = dict(zip(columns, (sums.sum(0) / counts.sum(0)).tolist(), strict=True))
    shared = {  # of all lists of a fold together: the mean over folds
        figure: float(np.mean([part["metrics"][figure] for part in parts]))
        for figure in parts[0]["metrics"]
        if figure not in metrics
    }
    seconds = {key: sum(part["seconds"][key] for part in parts) for key in parts[0]["seconds"]}
    bounds = zip(low.tolist(), high.tolist(), strict=True)
    return {
        "metrics": metrics | shared,
        "ci95": {figure: list(pair) for figure, pair in zip(columns, bounds, strict=True)},
        "users": len(by_user),
        "seconds": seconds,
        "parameters": parts[0]["parameters"],
        **{label: _slices(parts[0], label) for label in ("cold", "warm")},
        "config": parts[0]["config"],
    }


def table(entry: Entry) -> str:
    """The table in Markdown. Raises RuntimeError where configs differ in their data or split."""
    measured = json.loads(_path(entry.config).read_text())
    prints, rows = measured["fingerprints"], []
    for config in (entry.config, *entry.also):
        if not _path(config).exists():
            continue
        found = json.loads(_path(config).read_text())
        if found["fingerprints"] != prints:
            raise RuntimeError(f"{config} and {entry.config} were not measured alike")
        names = [n for n in found["retrievers"] if config == entry.config or n not in CHEAP]
        rows += [(n, config, found["seed"], found["retrievers"][n]) for n in names]
    rows.sort(key=lambda row: list(MODELS).index(row[0]))
    best = {figure: max(part["metrics"][figure] for *_, part in rows) for figure in entry.figures}
    one = rows[0][3]
    lines = [
        f"### {entry.title}",
        "",
        f"`{measured['protocol']}` ({', '.join(prints)}), {one['users']:,} users, all "
        f"{measured['candidates']:,} candidates ranked. {entry.about}".rstrip(),
        "",
        "| model | " + " | ".join([*entry.figures, *COLUMNS]) + " |",
        "|---|" + "---|" * (len(entry.figures) + len(COLUMNS)),
    ]
    for name, config, seed, part in rows:
        cells = [_cell(part, figure, best[figure]) for figure in entry.figures]
        seconds = part["seconds"]
        numbers = f"{part['parameters'] / 1e6:.2f} M" if "parameters" in part else ""
        fit = f"{seconds['fit']:,.0f}" if "fit" in seconds else ""
        cold = next(iter(part.get("cold", {}).get("items", {}).values()), None)
        tail = [
            "" if cold is None else _number(cold),
            numbers,
            fit,
            f"{part['users'] / seconds['evaluate']:,.0f}",
            f"`{config}`",
            str(seed),
        ]
        lines.append(f"| {MODELS[name]} | " + " | ".join(cells + tail) + " |")
    for name, *figures in entry.published:
        lines.append(f"| {name} | " + " | ".join(figures) + " |" * (len(COLUMNS) + 1))
    return "\n".join(lines) + "\n"


def _cell(part: dict[str, Any], figure: str, best: float) -> str:
    value = part["metrics"][figure]
    shown = _number(value)
    if value == best and not figure.startswith("Coverage"):
        shown = f"**{shown}**"
    if figure not in part["ci95"]:
        return shown
    low, high = part["ci95"][figure]
    return f"{shown} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return f"{value:.4f}".removeprefix("0") if abs(value) < 1 else f"{value:,.2f}"


if __name__ == "__main__":
    main()
