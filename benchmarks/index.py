"""How fast does each kind of index find the nearest items, how many of them, in how much memory?

Items and queries are drawn around the same centres, as unit vectors: `spread` is the deviation
from a centre over that between centres. Every kind is built of all items and searched with the
least effort of its grid (`recsys.serving.index.promise.families`) that finds `recall` of the exact
10 best, or with the most; of kinds of at most 80 bytes an item, the lean ones, `lean-recall` is
asked.

autofaiss, in an environment of its own (`make peers`), gets the memory that the fastest of ours
takes, and two and a half times as much, of which it makes a graph. It is measured with the effort
that it chooses itself, and with the least that finds as much as ours is asked for (by doubling),
which is the figure that counts here.

All take turns, each in a process of its own: batches of 256 queries, and 30 queries alone; of the
rounds the median counts. Building takes two threads and is not timed. `speedup` is over exact
search in the same batches (`speedup_alone`: one query at a time), and `over_autofaiss` over what
it builds in as much memory as ours takes, if need be with less recall (`over_autofaiss_roomy`: in
two and a half times as much).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from recsys.serving.index.kinds import build_index, load_index
from recsys.serving.index.machine import processor
from recsys.serving.index.measure import exact_places, measured, recall_of
from recsys.serving.index.options import IndexConfig
from recsys.serving.index.promise import Family, families

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / "benchmarks" / "peers" / "autofaiss_index.py"
PEER_PYTHON = ROOT / ".venv-autofaiss" / "bin" / "python"
K, SPACE, LEAN = 10, "s", 80
PEERS = (
    ("autofaiss", "fastest", 1),
    ("autofaiss_roomy", "fastest", 2.5),
)
ANY: TypeAdapter[IndexConfig] = TypeAdapter(IndexConfig)
FAMILIES = {
    f"{family[0].kind}{'_' + name if (name := codes_of(family[0])) else ''}": family
    for codes_of in [lambda c: getattr(c, "codes", getattr(c, "refine", ""))]
    for family in families()
}
Figures = dict[str, Any]


def draw(count: int, width: int, centres: int, spread: float, seed: int) -> np.ndarray:
    """Unit vectors [count, width] around the same centres whatever the seed."""
    middle = np.random.default_rng(0).standard_normal((centres, width), dtype=np.float32)
    rng = np.random.default_rng(seed)
    around = spread * rng.standard_normal((count, width), dtype=np.float32)
    vectors = middle[rng.integers(0, centres, count)] + around
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_data(folder: Path, args: argparse.Namespace) -> None:
    """Items, queries, and the exact answers, unless they are there."""
    shape = {"width": args.width, "centres": args.centres, "spread": args.spread}
    np.save(folder / "items.npy", draw(args.items, **shape, seed=1))
    np.save(folder / "queries.npy", draw(args.queries, **shape, seed=2))
    np.save(folder / "exact.npy", exact_places(*read(folder)[:2], K).numpy())


def read(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Items, mapped, and queries."""
    items = np.load(folder / "items.npy", mmap_mode="c")
    return torch.from_numpy(items), torch.from_numpy(np.load(folder / "queries.npy"))


def build(folder: Path, name: str, family: Family, args: argparse.Namespace) -> None:
    """The index of a family, with the least effort that finds enough, or the most."""
    if (folder / name / "config.json").exists():
        return
    torch.set_num_threads(args.build_threads)
    (folder / name).mkdir(exist_ok=True)
    items, queries = read(folder)
    exact = torch.from_numpy(np.load(folder / "exact.npy"))
    index = build_index(items, SPACE, family[0])
    wanted = args.lean_recall if index.bytes / len(items) <= LEAN else args.recall
    for config in family:
        if recall_of(index.searched_with(config), queries, exact) >= wanted:
            break
    index.save(folder / name)
    told = {"config": config.model_dump(), "bytes_per_item": index.bytes / len(items)}
    (folder / name / "config.json").write_text(json.dumps(told))
    print(f"built {name}: {config}", file=sys.stderr, flush=True)


def measure(folder: Path, name: str, threads: int) -> Figures:
    """What a process of its own finds."""
    import faiss

    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(threads)
    items, queries = read(folder)
    told = json.loads((folder / name / "config.json").read_text())
    config = ANY.validate_python(told["config"])
    items = items.clone() if config.kind == "exact" else items
    index = load_index((folder / name).joinpath, items, SPACE, config)
    exact = torch.from_numpy(np.load(folder / "exact.npy"))
    figures = measured(index, config, queries, exact)
    return {
        "index": str(config),
        "recall": round(figures.recall, 4),
        "queries_per_second": figures.queries_per_second,
        "milliseconds_alone": figures.milliseconds,
        "bytes_per_item": figures.bytes_per_item,
    }


def ask(command: list[str | Path], threads: int) -> Any:
    """The last line of a process, as JSON."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peer(folder: Path, verb: str, megabytes: int, args: argparse.Namespace, threads: int) -> Any:
    """What autofaiss builds in so much memory, or how fast that is."""
    wanted = args.lean_recall if megabytes * 1e6 / args.items <= LEAN else args.recall
    options = [verb, folder, megabytes, wanted, K]
    return ask([PEER_PYTHON, PEER, *map(str, options)], threads)


def middle(rounds: list[Figures]) -> Figures:
    """The median of what clocks say."""
    clocks = ("queries_per_second", "milliseconds_alone", "tuned_queries_per_second")
    of_clocks = {
        key: round(median(each[key] for each in rounds), 4) for key in clocks if key in rounds[0]
    }
    return {**rounds[0], **of_clocks}


def main() -> None:
    """Build, measure in turn and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--centres", type=int, default=1_000)
    parser.add_argument("--spread", type=float, default=1.0)
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--lean-recall", type=float, default=0.95)
    parser.add_argument("--threads", type=int, default=1, help="that search")
    parser.add_argument("--build-threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--without-autofaiss", action="store_true")
    parser.add_argument("--built", type=Path, help="a folder to keep what was built in")
    parser.add_argument("--only-build", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.measure[0]), args.measure[1], args.threads)))
        return
    if not args.without_autofaiss and not PEER_PYTHON.exists():
        sys.exit(f"{PEER_PYTHON} is missing: run `make peers`, or give --without-autofaiss")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.built or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "exact.npy").exists():
            make_data(folder, args)
        for name in args.kinds:
            build(folder, name, FAMILIES[name], args)
        report = in_turn(folder, args)
    if report:
        print(json.dumps(report))


def in_turn(folder: Path, args: argparse.Namespace) -> Figures | None:
    """Rounds in which everybody is measured once."""
    rounds: dict[str, list[Figures]] = {name: [] for name in args.kinds}
    own = [sys.executable, "-m", "benchmarks.index", "--threads", str(args.threads), "--measure"]
    for name in args.kinds:  # once, to know who is the fastest
        rounds[name].append(ask([*own, folder, name], args.threads))
        print(name, rounds[name][-1], file=sys.stderr, flush=True)
    best, lean = choose({name: of[0] for name, of in rounds.items()}, args)
    peers: dict[str, int] = {}
    if not args.without_autofaiss:
        for label, name, times in PEERS:
            each = rounds[best if name == "fastest" else lean][0]["bytes_per_item"]
            peers[label] = int(np.ceil(times * each * args.items / 1e6))
            peer(folder, "build", peers[label], args, args.build_threads)
            rounds[label] = []
    if args.only_build:
        return None
    for number in range(args.rounds):
        for name in args.kinds if number else ():
            rounds[name].append(ask([*own, folder, name], args.threads))
        for label, megabytes in peers.items():
            rounds[label].append(peer(folder, "measure", megabytes, args, args.threads))
            print(label, rounds[label][-1], file=sys.stderr, flush=True)
    figures = {name: middle(of) for name, of in rounds.items()}
    best, lean = choose(figures, args)

    def _rate(name: str) -> float:
        return float(figures[best if name == "fastest" else lean]["queries_per_second"])

    over = {
        f"over_{label}{how}": round(_rate(name) / figures[label][key], 2)
        for label, name, _ in PEERS
        if label in figures
        for how, key in (("", "queries_per_second"), ("_as_tuned", "tuned_queries_per_second"))
    }
    fastest, exact = figures[best], figures["exact"]
    return {
        "benchmark": "index",
        "recall": fastest["recall"],
        "speedup": round(fastest["queries_per_second"] / exact["queries_per_second"], 1),
        "speedup_alone": round(exact["milliseconds_alone"] / fastest["milliseconds_alone"], 1),
        **over,
        "lean_recall": figures[lean]["recall"],
        "lean_bytes": figures[lean]["bytes_per_item"],
        "lean_speedup": round(figures[lean]["queries_per_second"] / exact["queries_per_second"], 1),
        "fastest": best,
        "lean": lean,
        "kinds": figures,
        "memory_mb_of_autofaiss": peers,
        "data": {key: getattr(args, key) for key in ("items", "width", "centres", "spread")},
        "queries": args.queries,
        "k": K,
        "threads": args.threads,
        "rounds": args.rounds,
        "processor": processor(),
    }


def choose(figures: dict[str, Figures], args: argparse.Namespace) -> tuple[str, str]:
    """The fastest that finds enough, and the fastest of the lean."""
    ours = {name: of for name, of in figures.items() if name in args.kinds}
    enough = {name: of for name, of in ours.items() if of["recall"] >= args.recall}
    small = {name: of for name, of in ours.items() if of["bytes_per_item"] <= LEAN} or enough
    return tuple(  # type: ignore[return-value]
        max(among, key=lambda name: among[name]["queries_per_second"]) for among in (enough, small)
    )


if __name__ == "__main__":
    main()
