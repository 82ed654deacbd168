"""Does a server stay right while everything around it changes?

Publishes five bundles of small models without training one after the other, three of them whole
and one as a delta, into the folder that `recsys serve` answers from, while connections ask for
lists and add events to a store of users; once the server is killed with SIGKILL and started
again.

Every list is compared with that of the bundle that it names, asked in this process. Every event
is sent until it was acknowledged, as people's browsers would, and looked for in the store at the
end. While the server is down nothing answers: those attempts are `unreached`, and are made again.

`wrong` counts other lists than the bundle's, `failed` answers other than 200, `lost` and `twice`
events that the store lacks or has twice; `growth_mb` is what the process grew by from its second
bundle to its fourth, `memory_mb` what it took at the end of each phase.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from benchmarks.requests import EVENTS, processor, write_log
from benchmarks.serving import Server, clustered
from feature_store.catalogue import Catalogue
from feature_store.columns import HISTORY
from feature_store.engine import Engine, EngineConfig
from feature_store.event_log import EventLog
from feature_store.examples import write_examples
from feature_store.protocols import LeaveOneOut
from feature_store.splits import make_split
from recsys.data.examples import Examples
from recsys.embeddings.options import PerFeature
from recsys.embeddings.tables import materialise
from recsys.export.bundle import write_bundle
from recsys.export.generator import GeneratorExport
from recsys.online.places import open_users
from recsys.retrievers.sasrec import SASRec, SASRecConfig
from recsys.serving.golden import same_list
from recsys.serving.index.options import ExactConfig
from recsys.serving.manifest import About
from recsys.serving.recommender import Recommender
from recsys.serving.releases import CURRENT, Releases

WIDTH, K, QUESTIONS, CONNECTIONS = 64, 10, 200, 8
CHANGED = 0.01  # of the items, by the delta


class Model:
    """Bundles of models without training, over one log."""

    def __init__(self, folder: Path, items: int) -> None:
        self.folder, self.items = folder, items
        self.log: EventLog = write_log(folder / "log", pa.array(np.arange(items)))
        with Engine(EngineConfig(threads=1)) as engine:
            split = make_split(engine, self.log, LeaveOneOut())
            catalogue = Catalogue(self.log.folder, self.log.schema)
            write_examples(engine, split, catalogue, folder / "examples")
        self.examples = Examples(folder / "examples")

    def export(self, name: str, seed: int, changed: float = 0.0) -> Path:
        """The bundle of a seed; of a share of the items the vectors are others."""
        torch.manual_seed(seed)
        config = SASRecConfig(width=WIDTH, blocks=1, heads=1, max_length=EVENTS)
        model = SASRec(config, PerFeature(), self.examples, 0)
        materialise(model)
        with torch.no_grad():
            table = next(w for w in model.parameters() if w.shape == (self.items + 1, WIDTH))
            table[1:] = clustered(self.items)
            some = torch.randperm(self.items)[: int(changed * self.items)] + 1
            table[some] = torch.randn(len(some), WIDTH)
        part = GeneratorExport(
            model.eval(),
            self.examples,
            self.examples.candidates("catalogue"),
            index=ExactConfig(),
            golden=16,
            about=About(run=name, model="sasrec"),
        )
        catalogue = Catalogue(self.log.folder, self.log.schema)
        write_bundle(self.folder / name, {"generator": part}, catalogue)
        return self.folder / name


class Counts:
    """What happened, added up by several threads."""

    def __init__(self) -> None:
        self._lock, self.of = threading.Lock(), dict[str, int]()
        self.first: dict[str, str] = {}

    def add(self, what: str, told: str = "") -> None:
        """One more, and what the first of its kind was."""
        with self._lock:
            self.of[what] = self.of.get(what, 0) + 1
            self.first.setdefault(what, told)


class Caller:
    """A connection that is made anew where the server was gone."""

    def __init__(self, port: Callable[[], int], counts: Counts) -> None:
        self._port, self._counts = port, counts
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes) -> tuple[int, bytes] | None:
        """Status and body; None where nothing answers."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=30)
            self._connection.request("POST", path, body)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection = None
            self._counts.add("unreached")
            time.sleep(0.2)
            return None


class Soak:
    """Load on a server, and what came of it."""

    def __init__(self, serve: Callable[[], Server]) -> None:
        self._serve, self.server = serve, serve()
        self.counts, self.going = Counts(), True
        self.lists: dict[str, list[tuple[list[Any], list[float]]]] = {}
        self.acknowledged: dict[int, list[int]] = {}
        self.rss: list[tuple[float, float]] = []
        rng = np.random.default_rng(3)
        self.histories = [rng.integers(0, 1000, EVENTS).tolist() for _ in range(QUESTIONS)]
        self._bodies = [
            json.dumps({"history": history, "k": K}).encode() for history in self.histories
        ]

    def expect(self, bundle: Path) -> None:
        """Ask a bundle in this process, before it is served."""
        recommender = Recommender.open(bundle)
        asked = pd.DataFrame({HISTORY: self.histories})
        answers = recommender.recommend(requests=asked, k=K)
        lists = [
            (rows["item"].tolist(), rows["score"].tolist())
            for _, rows in answers.groupby("request", sort=True)
        ]
        self.lists[version_of(bundle)] = lists

    def ask(self, first: int) -> None:
        """Ask until it is over."""
        caller, place = Caller(lambda: self.server.port, self.counts), first
        while self.going:
            place = (place + 1) % QUESTIONS
            answer = caller.post("/recommend", self._bodies[place])
            if answer is None:
                continue
            status, body = answer
            if status != 200:
                self.counts.add("failed", body.decode()[:200])
                continue
            (told,) = json.loads(body)["answers"]
            items = [item["item"] for item in told["items"]]
            scores = [item["score"] for item in told["items"]]
            right = same_list(*self.lists[told["bundle"]][place], items, scores)
            self.counts.add("right" if right else "wrong", f"{told['bundle']}, question {place}")

    def add(self) -> None:
        """Add events until it is over, each until it is acknowledged."""
        caller, number = Caller(lambda: self.server.port, self.counts), 0
        began = datetime(2026, 1, 1, tzinfo=UTC)
        while self.going:
            user, item, number = 1_000_000 + number // 8, number % 1000, number + 1
            when = (began + timedelta(seconds=number)).isoformat()
            event = {"user": user, "item": item, "time": when}
            body = json.dumps({"events": [event]}).encode()
            while (answer := caller.post("/events", body)) is None:
                pass
            if answer[0] != 200:
                self.counts.add("failed", answer[1].decode()[:200])
                continue
            self.acknowledged.setdefault(user, []).append(item)
            time.sleep(0.01)

    def watch(self) -> None:
        """Look at the memory of the server's process."""
        while self.going:
            try:
                status = Path(f"/proc/{self.server.pid}/status").read_text()
                kb = int(status.partition("VmRSS:")[2].split()[0])
                self.rss.append((time.monotonic(), kb / 1024))
            except (OSError, ValueError, IndexError):
                pass
            time.sleep(0.5)

    def memory(self, ends: dict[str, float]) -> dict[str, float]:
        """MB of the process at the end of each phase: medians of its last five seconds."""
        return {
            name: round(float(np.median([mb for at, mb in self.rss if end - 5 <= at <= end])), 1)
            for name, end in ends.items()
        }

    def ready(self) -> str | None:
        """The version that answers; None while nothing does."""
        try:
            with urlopen(f"http://127.0.0.1:{self.server.port}/readyz", timeout=10) as answer:
                return str(json.load(answer)["bundle"])
        except OSError:
            return None

    def kill(self) -> None:
        """SIGKILL, and start again."""
        self.server.kill()
        self.server = self._serve()


def version_of(bundle: Path) -> str:
    """As a server names it."""
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()[:12]


def recsys(*words: str | Path) -> None:
    """A verb of the command line."""
    subprocess.run([sys.executable, "-m", "pipelines.cli", *map(str, words)], check=True)


def until_served(soak: Soak, version: str) -> float:
    """Seconds until the server answers from a version."""
    began = time.monotonic()
    while time.monotonic() - began < 60:
        with_it = soak.ready()
        if with_it == version:
            return round(time.monotonic() - began, 2)
        time.sleep(0.05)
    raise SystemExit(f"the server does not take version {version}, it answers from {with_it}")


def missing(store: str, acknowledged: dict[int, list[int]]) -> tuple[int, int]:
    """How many acknowledged events a store lacks, and how many it has twice."""
    known = open_users(store).of(pa.array(list(acknowledged)), [HISTORY])
    lost = twice = 0
    for (_, items), history in zip(
        acknowledged.items(), known.column(HISTORY).to_pylist(), strict=True
    ):
        had = history or []
        lost += sum(item not in had for item in items)
        twice += len(had) - len(set(had))
    return lost, twice


def main() -> None:
    """Soak and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--items", type=int, default=20_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = Model(folder, args.items)
        made = {name: model.export(name, seed) for seed, name in enumerate(("1", "2", "3", "5"))}
        made["4"] = model.export("4", 2, CHANGED)  # as the third, but for a few items
        recsys("bundle", "delta", made["3"], made["4"], "--out", folder / "delta")
        releases, store = Releases(folder / "served"), f"sqlite:///{folder}/users.db"
        releases.publish(made["1"])
        recsys("online", "sync", str(model.log.folder), store)
        options = ("--users", store, "--watch-s", "0.5")
        soak = Soak(lambda: Server(releases.folder / CURRENT, *options))
        for bundle in made.values():
            soak.expect(bundle)
        threads = [
            threading.Thread(target=soak.ask, args=(first,))
            for first in range(0, QUESTIONS, QUESTIONS // CONNECTIONS)
        ]
        threads += [threading.Thread(target=work) for work in (soak.add, soak.watch)]
        for thread in threads:
            thread.start()
        steps: dict[str, Callable[[], object]] = {
            "2": lambda: releases.publish(made["2"]),
            "3": lambda: releases.publish(made["3"]),
            "4": lambda: recsys("bundle", "apply", folder / "delta", releases.folder),
            "killed": soak.kill,
            "5": lambda: releases.publish(made["5"]),
        }
        phase, current, ends, taken = args.minutes * 60 / (len(steps) + 1), "1", {}, {}
        try:
            for name, step in steps.items():
                time.sleep(phase)
                ends[current], current = time.monotonic(), name
                print(f"{name}: {soak.counts.of}", file=sys.stderr)
                step()
                if name in made:
                    taken[name] = until_served(soak, version_of(made[name]))
            time.sleep(phase)
            ends[current] = time.monotonic()
        finally:
            soak.going = False
            for thread in threads:
                thread.join()
            status = soak.server.stop()
        lost, twice = missing(store, soak.acknowledged)
        megabytes = soak.memory(ends)
        print(
            json.dumps(
                {
                    "benchmark": "soak",
                    "minutes": args.minutes,
                    "answers": soak.counts.of.get("right", 0),
                    "wrong": soak.counts.of.get("wrong", 0),
                    "failed": soak.counts.of.get("failed", 0),
                    "unreached": soak.counts.of.get("unreached", 0),
                    "events": sum(map(len, soak.acknowledged.values())),
                    "lost": lost,
                    "twice": twice,
                    "growth_mb": round(megabytes["4"] - megabytes["2"], 1),
                    "memory_mb": megabytes,
                    "seconds_to_swap": taken,
                    "first": {
                        what: told for what, told in soak.counts.first.items() if what != "right"
                    },
                    "items": args.items,
                    "connections": CONNECTIONS,
                    "status_of_the_stop": status,
                    "processor": processor(),
                }
            )
        )


if __name__ == "__main__":
    main()
