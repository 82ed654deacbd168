"""What does each objective of pre-training add, at equal steps?

`python -m benchmarks.text_objectives pipelines/configs/amazon_beauty_recformer.toml
data.path=FOLDER --steps 4000 --fine-tune 2000 --views RUN`: Recformer is pre-trained for as many
steps with hidden words alone (`mlm`), with next items besides (`contrast`), with DupMAE's decoder
besides (`dupmae`), and with the vectors of another run of the same log besides (`views`, where a
run is named); from the same random weights, over the same batches, on one schedule that falls from
`--steps` on. Each is judged on the validation events twice: as it is, and after the same short
fine-tuning (phase `train`). `none` is not pre-trained.

`retriever.pretraining.runs` of the config brings other catalogues. Figures are means over users
with 95 % intervals. The table goes to stderr, one JSON line to stdout, for
`benchmarks/results/text_objectives.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.trained import interval
from feature_store.protocols import VALIDATION
from pipelines.ingest import ingest_source
from recsys.config import RunConfig, load_config, parse_config
from recsys.data.examples import Examples
from recsys.distributed import Group, join
from recsys.retrievers.recformer import PRETRAIN, TRAIN, Recformer
from recsys.runs.build import trainable
from recsys.runs.evaluators import judge
from recsys.runs.learn import trainer_of
from recsys.runs.prepare import prepare
from recsys.training import checkpoint

FIGURES = ("NDCG@10", "Recall@10")
MLM = {"contrast": 0.0, "decoder": None, "views": None}
CONTRAST = MLM | {"contrast": 1.0}
DUPMAE = CONTRAST | {"decoder": {"weight": 1.0, "bag_of_words": 0.1}}
OBJECTIVES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "mlm": MLM,
    "contrast": CONTRAST,
    "dupmae": DUPMAE,
    "views": DUPMAE,
}


def config_of(config: RunConfig, objective: dict[str, Any], views: Path | None) -> RunConfig:
    """The config that is pre-trained with an objective alone."""
    tree = config.to_dict()
    kept = {k: v for k, v in tree["retriever"].get("pretraining", {}).items() if k not in objective}
    chosen = kept | {name: value for name, value in objective.items() if value is not None}
    tree["retriever"]["pretraining"] = chosen | ({"views": {"run": str(views)}} if views else {})
    tree["trainer"].pop("phases", None)
    return parse_config(tree)


class Learner:
    """Trains for numbers of steps, and judges by the validation events."""

    def __init__(self, config: RunConfig, examples: Examples, group: Group, folder: Path) -> None:
        self.examples, self.group, self.folder = examples, group, folder
        self.judged = judge(config, examples, VALIDATION, group)

    def train(
        self, config: RunConfig, phase: str, steps: int, start: Path | None
    ) -> tuple[Path, float]:
        """Where the last weights of so many steps of a phase lie, and the seconds they took."""
        checkpoints = Path(tempfile.mkdtemp(dir=self.folder))
        options = config.trainer.model_copy(update={"epochs": steps, "steps": steps})
        trainer = trainer_of(
            config,
            self.examples,
            self.group,
            checkpoints,
            trainer=options,
            start_from=start,
            phase=phase,
        )
        trainer.planned_steps = steps  # where the schedule ends
        started = time.perf_counter()
        trainer.fit()
        return checkpoint.best(checkpoints), time.perf_counter() - started

    def judge(self, config: RunConfig, weights: Path | None) -> dict[str, list[float]]:
        """Figures of a model with these weights, all of whose items are encoded by them."""
        model = trainable(config, self.examples)
        assert isinstance(model, Recformer)
        if weights is not None:
            checkpoint.load_unsharded(weights, model)
        model.to(self.group.device).eval()
        model.encode_items()
        users = self.judged(model).users
        return {figure: interval(users[figure], 1, 4) for figure in FIGURES}


def measure(
    config: RunConfig,
    objectives: Iterable[str],
    steps: tuple[int, int],
    views: Path | None,
    group: Group,
    folder: Path,
) -> dict[str, Any]:
    """Figures by objective, of so many steps of pre-training and of fine-tuning."""
    ingest_source(config.data, config.store_folder)
    examples = prepare(config)
    learner = Learner(config, examples, group, folder)
    rows: dict[str, Any] = {}
    for name in objectives:
        objective = OBJECTIVES[name]
        chosen = config_of(config, objective or MLM, views if name == "views" else None)
        start, seconds = None, 0.0
        if objective is not None:
            start, seconds = learner.train(chosen, PRETRAIN, steps[0], None)
        zero_shot = learner.judge(chosen, start)
        tuned, _ = learner.train(chosen, TRAIN, steps[1], start)
        rows[name] = {
            "zero_shot": zero_shot,
            "fine_tuned": learner.judge(chosen, tuned),
            "pretraining_seconds": round(seconds, 1),
        }
        print(f"{name:>10}  {told(rows[name])}", file=sys.stderr, flush=True)
    return {
        "log": config.name,
        "protocol": examples.summary.protocol,
        "protocol_fingerprint": examples.summary.fingerprint,
        "role": VALIDATION,
        "steps": steps[0],
        "fine_tuning_steps": steps[1],
        "objectives": rows,
    }


def told(row: dict[str, Any]) -> str:
    """A row of the table."""
    return "  ".join(
        "{} {} {:.4f} ({:.4f} to {:.4f})".format(when, figure, *row[when][figure])
        for when in ("zero_shot", "fine_tuned")
        for figure in FIGURES
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure all, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="a TOML of recformer")
    parser.add_argument("overrides", nargs="*", help="such as data.path=FOLDER")
    parser.add_argument("--steps", type=int, default=4000, help="of pre-training")
    parser.add_argument("--fine-tune", type=int, default=2000, help="steps of fine-tuning")
    parser.add_argument("--views", type=Path, help="a finished run of the same log")
    parser.add_argument("--only", nargs="+", choices=OBJECTIVES, help="of the objectives")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    objectives = args.only or [name for name in OBJECTIVES if name != "views" or args.views]
    if "views" in objectives and args.views is None:
        parser.error("views needs --views RUN")
    with tempfile.TemporaryDirectory() as folder, join(args.device) as group:
        where = [f"output={folder}", "tracking.enabled=false"]
        config = load_config(args.config, [*where, *args.overrides])
        steps = (args.steps, args.fine_tune)
        measured = measure(config, objectives, steps, args.views, group, Path(folder))
    print(json.dumps({"benchmark": "text_objectives", **measured}))


if __name__ == "__main__":
    main()
