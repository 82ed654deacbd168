"""What do nested vectors cost, and what are their prefixes worth?

On MovieLens-1M, leave one out, with the options of `movielens_1m_matryoshka`: the nested model, the
same without nested widths, and one model trained at each of the widths alone, at the temperature
that the nested loss of this width has. The epoch that validation chose is measured on the test.
Recall in per cent with 95 % intervals over users, of means over the seeds; ratios are of those
means, with intervals that resample users, the same for both.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.trained import CONFIGS, interval, test, train
from pipelines.ingest import ingest_source
from recsys.config import RunConfig, load_config
from recsys.distributed import join
from recsys.retrievers.trained import TrainedRetriever
from recsys.runs.prepare import prepare
from recsys.statistics.bootstrap import ratio_intervals

FIGURES = ("Recall@10", "Recall@50", "NDCG@10")
Figures = dict[str, np.ndarray]


def ratio(above: list[Figures], below: list[Figures], figure: str) -> list[float]:
    """Of means over users and seeds, and the ends of its interval."""
    over, under = (np.mean([one[figure] for one in arm], axis=0) for arm in (above, below))
    low, high = ratio_intervals(over[:, None], under[:, None])
    return [round(float(x), 4) for x in (over.sum() / under.sum(), low[0], high[0])]


def main() -> None:
    """Train all and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="MovieLens-1M, folder or zip")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    started = time.perf_counter()
    found: dict[str, list[Figures]] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, join("cpu") as group:
        folder = Path(name)

        def config_of(seed: int, *overrides: str) -> RunConfig:
            common = [f"data.path={args.data}", f"output={folder}", f"seed={seed}"]
            common += [f"trainer.epochs={args.epochs}", "evaluation.ks=[10, 50, 200]"]
            return load_config(CONFIGS / "movielens_1m_matryoshka.toml", [*common, *overrides])

        whole = config_of(1)
        ingest_source(whole.data, whole.store_folder)
        examples = prepare(whole)
        options: Any = whole.retriever
        widths: tuple[int, ...] = options.matryoshka
        plain = ["retriever.matryoshka=[]", "retriever.matryoshka_weights=[]"]
        plain.append("export.index.kind=exact")
        arms = {"nested": [], "plain": plain}
        for w in widths:
            temperature = options.temperature * (options.width / w) ** 0.5
            narrow = [f"retriever.width={w}", f"retriever.temperature={temperature}"]
            arms[f"alone_{w}"] = [*plain, *narrow]
        for seed in range(1, args.seeds + 1):
            for arm, overrides in arms.items():
                config = config_of(seed, *overrides)
                trained = train(config, examples, group, folder)
                assert isinstance(trained.model, TrainedRetriever)
                seconds[arm] = round(trained.seconds)
                models: dict[str, Any] = {arm: trained.model, **trained.model.variants()}
                for label, model in models.items():
                    users = test(config, examples, group, model).users
                    found.setdefault(label, []).append({f: users[f] for f in FIGURES})
                told = {n: round(float(v.mean()), 4) for n, v in found[arm][-1].items()}
                minutes = (time.perf_counter() - started) / 60
                print(f"seed {seed} {arm} ({minutes:.1f} min): {told}", file=sys.stderr, flush=True)
    short = f"width_{widths[0]}_reranked"
    print(
        json.dumps(
            {
                "benchmark": "matryoshka",
                "figures": {
                    arm: {f: interval(np.mean([one[f] for one in ones], axis=0)) for f in FIGURES}
                    for arm, ones in found.items()
                },
                "nested_over_plain": {
                    f: ratio(found["nested"], found["plain"], f) for f in FIGURES
                },
                "shortlist_over_whole": {
                    f: ratio(found[short], found["nested"], f) for f in FIGURES
                },
                "prefix_over_alone": {
                    w: {f: ratio(found[f"width_{w}"], found[f"alone_{w}"], f) for f in FIGURES}
                    for w in widths
                },
                "weights": options.matryoshka_weights,
                "seconds": seconds,
                "seeds": args.seeds,
                "epochs": args.epochs,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
