"""How fast does a bundle of 1,000,000 items become the next one, of which 1 % differ?

Exports a small sequence model of width 64 over a random catalogue. Of the items of the next bundle
half a percent have other vectors, a quarter are new and a quarter are gone; half a percent have
other titles. Makes the delta, applies it to a serving folder, and looks at every file.

`apply_seconds` is the median of applying: every file made, hashed and brought to the disk, the
golden requests replayed, the link replaced. A process that has just begun takes
`first_apply_seconds`, without the import of torch. `delta_mb` is of `full_mb`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from benchmarks.requests import EVENTS, processor, write_log
from feature_store.catalogue import Catalogue
from feature_store.columns import EXPECTED_ITEMS, EXPECTED_SCORES
from feature_store.durable import write_parquet
from feature_store.engine import Engine, EngineConfig
from feature_store.examples import write_examples
from feature_store.parquet import read_parquet
from feature_store.protocols import LeaveOneOut
from feature_store.splits import make_split
from feature_store.vocabulary import Vocabulary
from recsys.data.examples import Examples
from recsys.embeddings.options import PerFeature
from recsys.embeddings.tables import materialise
from recsys.export.bundle import write_bundle
from recsys.export.generator import GeneratorExport
from recsys.export.golden import GOLDEN_K
from recsys.retrievers.sasrec import SASRec, SASRecConfig
from recsys.serving.bundle import CATALOGUE, Bundle
from recsys.serving.delta.apply import apply_delta
from recsys.serving.delta.make import make_delta
from recsys.serving.fallback import FALLBACK, ITEM
from recsys.serving.files import digest
from recsys.serving.finder import ITEM_IDS
from recsys.serving.generator import ITEMS
from recsys.serving.golden import GOLDEN
from recsys.serving.index.options import ExactConfig
from recsys.serving.manifest import About, Manifest
from recsys.serving.recommender import Recommender
from recsys.serving.releases import CURRENT, Releases

PART = "generator"


def export(folder: Path, items: int, width: int) -> Path:
    """The bundle of a model without training, which answers with all but a few items."""
    ids = pa.array([f"B{number:09d}" for number in range(items)])
    log = write_log(folder / "log", ids)
    catalogue = Catalogue(log.folder, log.schema)
    with Engine(EngineConfig(threads=1)) as engine:
        split = make_split(engine, log, LeaveOneOut())
        write_examples(engine, split, catalogue, folder / "examples")
    examples = Examples(folder / "examples")
    torch.manual_seed(0)
    config = SASRecConfig(width=width, blocks=1, heads=1, max_length=EVENTS)
    model = SASRec(config, PerFeature(), examples, 0)
    materialise(model)
    candidates = examples.candidates("catalogue")
    some = torch.ones(len(candidates), dtype=torch.bool)
    some[torch.randperm(len(candidates))[: len(candidates) // 400]] = False
    about = About(run="benchmark", model="sasrec")
    part = GeneratorExport(
        model, examples, candidates[some], index=ExactConfig(), golden=16, about=about
    )
    write_bundle(folder / "old", {PART: part}, catalogue)
    return folder / "old"


def altered(old: Path, new: Path) -> Path:
    """The next bundle: other vectors, items and titles, and the answers that go with them."""
    shutil.copytree(old, new)
    bundle, part = Bundle.open(old), new / "parts" / PART
    rng, share = np.random.default_rng(0), 400
    vectors, ids = np.load(part / ITEMS), Vocabulary.load(part / ITEM_IDS).values
    every = bundle.vocabularies[bundle.schema.item].values
    places = Vocabulary(ids).encode(every) - 1  # of the vocabulary's ids among the items
    drawn = rng.choice(len(ids), 3 * (len(ids) // share), replace=False)
    other, gone = np.split(drawn, [2 * (len(ids) // share)])
    vectors[other] = rng.permuted(vectors[other], axis=1)
    kept = ~np.isin(places, gone)
    wider = np.concatenate([vectors, rng.permuted(vectors[: (places < 0).sum()], axis=1)])
    places[places < 0] = np.arange(len(vectors), len(wider))
    np.save(part / ITEMS, wider[places[kept]])
    Vocabulary(every.filter(pa.array(kept))).save(part / ITEM_IDS)
    popular = read_parquet(part / FALLBACK)
    left = pc.is_in(popular.column(ITEM), every.filter(pa.array(kept)))
    write_parquet(popular.filter(left), part / FALLBACK)
    table = read_parquet(new / CATALOGUE)
    titles = np.array(table.column("title").to_pylist(), object)
    titles[rng.choice(len(titles), 2 * (len(titles) // share), replace=False)] += " (new)"
    column = table.column_names.index("title")
    write_parquet(table.set_column(column, "title", pa.array(titles)), new / CATALOGUE)
    record = bundle.manifest.parts[PART].model_copy(update={"candidates": int(kept.sum())})
    manifest = bundle.manifest.model_copy(update={"parts": {PART: record}})
    _rewrite(new, manifest)
    recommender = Recommender.open(new, verify=False)
    golden = recommender.finder.golden()
    asked = golden.drop_columns([EXPECTED_ITEMS, EXPECTED_SCORES])
    answers = recommender.answer(asked, k=GOLDEN_K)
    shown = [row[row >= 0].numpy() for row in answers.places]
    lists = [recommender.finder.item_ids.take(pa.array(row)).to_pylist() for row in shown]
    scores = [row[: len(some)].tolist() for row, some in zip(answers.scores, shown, strict=True)]
    for name, expected in ((EXPECTED_ITEMS, lists), (EXPECTED_SCORES, scores)):
        field = golden.schema.field(name)
        place = golden.column_names.index(name)
        golden = golden.set_column(place, field, pa.array(expected, field.type))
    write_parquet(golden, part / GOLDEN)
    _rewrite(new, manifest)
    return new


def _rewrite(folder: Path, manifest: Manifest) -> None:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    files = {name: digest(folder / name) for name in sorted(names) if name != "manifest.json"}
    manifest.model_copy(update={"files": files}).save(folder)


def make(folder: Path, items: int, width: int) -> None:
    """Write two bundles and their delta, and how long the latter took."""
    folder.mkdir(parents=True, exist_ok=True)
    old = export(folder, items, width)
    new = altered(old, folder / "new")
    start = time.perf_counter()
    record = make_delta(old, new, folder / "delta.zip")
    made = round(time.perf_counter() - start, 1)
    kinds = {name: recipe.kind for name, recipe in record.files.items()}
    told = {"make_seconds": made, "items": items, "width": width, "files": kinds}
    (folder / "made.json").write_text(json.dumps(told))


def megabytes(path: Path) -> float:
    """Of a file, or of all in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="made once, and measured again")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pa.set_cpu_count(args.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = args.folder or Path(place)
        if not (folder / "made.json").exists():
            make(folder, args.items, args.width)
        new, delta = folder / "new", folder / "delta.zip"
        took = []
        for turn in range(args.times):
            releases = Releases(folder / f"served{turn}")
            releases.publish(folder / "old")
            start = time.perf_counter()
            apply_delta(delta, releases)
            took.append(time.perf_counter() - start)
            print(f"applied in {took[-1]:.2f} s", file=sys.stderr)
            served = releases.folder / CURRENT
            names = Bundle.open(new).manifest.files
            assert all(digest(served / name) == digest(new / name) for name in names)
            shutil.rmtree(releases.folder)
        figures = {
            "benchmark": "delta",
            "apply_seconds": round(statistics.median(took), 2),
            "first_apply_seconds": round(took[0], 2),
            **json.loads((folder / "made.json").read_text()),
            "delta_mb": megabytes(delta),
            "full_mb": megabytes(new),
            "threads": args.threads,
            "processor": processor(),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
