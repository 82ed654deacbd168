"""Does one multiplexed table beat the hashing trick at equal bytes? MovieLens-1M, DCN-V2.

The experiment of Coleman et al. (NeurIPS 2023) as `pipelines/configs/movielens_1m_dcn.toml` states
it: ratings 1 and 2 against 4 and 5; user, movie, gender, age, occupation and zip code; one cross
layer and a deep layer of 192 over embeddings of width 30; a random 80/10/10 split. Every arm is
trained with each seed until validation AUC falls twice; its best epoch is measured on the test.

`gain_*` is the AUC of `unified` (two probes of width 15) less that of `hashed`, in points, at each
budget; `unified_1_probe` is the paper's own arm, a row of width 30 for each id.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.trained import CONFIGS, train
from feature_store.columns import LABEL
from feature_store.protocols import TEST
from pipelines.ingest import ingest_source
from recsys.config import RunConfig, load_config
from recsys.data.examples import Examples
from recsys.distributed import Group, join
from recsys.rankers.base import Ranker
from recsys.runs.evaluators import predictions
from recsys.runs.prepare import prepare

CONFIG = CONFIGS / "movielens_1m_dcn.toml"
BUDGETS = {"1600kb": 1.6, "791kb": 0.791, "158kb": 0.158}  # MB
ARMS = {
    "hashed": ["embeddings.layout=hashed"],
    "unified": ["embeddings.layout=unified", "embeddings.probes=2"],
    "unified_1_probe": ["embeddings.layout=unified", "embeddings.probes=1"],
}
COLLISIONLESS = ["embeddings={layout='per_feature', init_range=0.05}"]  # it has no budget


def measure(config: RunConfig, examples: Examples, group: Group, folder: Path) -> tuple[float, int]:
    """Test AUC of the epoch that validation chose, and the epoch."""
    best, progress = train(config, examples, group, folder)
    assert isinstance(best, Ranker)
    found = predictions(config, examples, best, TEST, group)[LABEL]
    return found.metrics["AUC"], progress.best_epoch


def mean_and_deviation(values: list[float]) -> list[float]:
    """Rounded to five digits; the deviation of a single value is 0."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return [round(statistics.mean(values), 5), round(deviation, 5)]


def draw(found: dict[str, dict[str, list[float]]], path: Path) -> None:
    """AUC over bytes of each arm, with deviations over the seeds."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    labels = {"unified": "unified, 2 probes", "unified_1_probe": "unified, 1 probe"}
    for arm in ARMS:
        points = [found[arm][budget] for budget in BUDGETS]
        means, deviations = zip(*map(mean_and_deviation, points), strict=True)
        axes.errorbar(
            list(BUDGETS.values()), means, yerr=deviations, marker="o", label=labels.get(arm, arm)
        )
    mean, _ = mean_and_deviation(found["collisionless"]["all"])
    axes.axhline(mean, color="black", linestyle="--", linewidth=1, label="a row for every id")
    axes.set_xscale("log")
    axes.set_xticks(list(BUDGETS.values()), [f"{mb:g}" for mb in BUDGETS.values()])
    axes.minorticks_off()
    axes.set(xlabel="MB of embeddings", ylabel="test AUC", title="MovieLens-1M, DCN-V2")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(path, dpi=150)


def main() -> None:
    """Train every arm with every seed, draw, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="MovieLens-1M, folder or zip")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", type=Path, default=Path("unified_embedding.png"))
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {arm: {} for arm in (*ARMS, "collisionless")}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, join(args.device) as group:
        folder = Path(name)
        base = [f"data.path={args.data}", f"output={folder}"]
        config = load_config(CONFIG, base)
        ingest_source(config.data, config.store_folder)
        examples = prepare(config)
        cells = [("collisionless", "all", COLLISIONLESS)]
        for budget, mb in BUDGETS.items():
            own = f"embeddings.budget_mb={mb}"
            cells += [(arm, budget, [*options, own]) for arm, options in ARMS.items()]
        for seed in range(1, args.seeds + 1):
            for arm, budget, options in cells:
                config = load_config(CONFIG, [*base, *options, f"seed={seed}"])
                auc, epoch = measure(config, examples, group, folder)
                found[arm].setdefault(budget, []).append(auc)
                minutes = (time.perf_counter() - started) / 60
                print(
                    f"seed {seed} {arm} {budget}: AUC {auc:.4f} of epoch {epoch} "
                    f"({minutes:.0f} min)",
                    file=sys.stderr,
                )
    draw(found, args.plot)
    unified, hashed = found["unified"], found["hashed"]
    gains = {
        f"gain_{budget}": round(
            100 * (statistics.mean(unified[budget]) - statistics.mean(hashed[budget])), 2
        )
        for budget in BUDGETS
    }
    print(
        json.dumps(
            {
                "benchmark": "unified_embedding",
                **gains,
                "unified_1600kb": mean_and_deviation(unified["1600kb"])[0],
                "collisionless": mean_and_deviation(found["collisionless"]["all"])[0],
                "auc": {
                    arm: {budget: mean_and_deviation(values) for budget, values in cells.items()}
                    for arm, cells in found.items()
                },
                "seeds": args.seeds,
                "minutes": round((time.perf_counter() - started) / 60, 1),
                "threads": torch.get_num_threads(),
                "device": group.device.type,
                "plot": str(args.plot),
            }
        )
    )


if __name__ == "__main__":
    main()
