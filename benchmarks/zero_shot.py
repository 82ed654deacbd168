"""What does an encoder of texts find on a log that nothing of it was trained on?

`python -m benchmarks.zero_shot pipelines/configs/amazon_beauty_text_knn.toml data.path=FOLDER
--encoder sentences=FOLDER others=RUN`: data and protocol are the config's. An encoder is a folder
in the layout of Hugging Face, or a run of `recformer` over other catalogues, by the name that the
table has. It encodes items and histories as it is: not one step is trained. Beside it stand the
config's own retriever (TF-IDF nearest neighbours), popularity, which alone of them knows the log's
training events, and Recformer's small encoder twice: `random`, and `words`, where it begins with
what the words of the catalogue tell, as every training does. All rank the whole catalogue for the
same users.

Figures are means over users with 95 % intervals, `over_popularity` the paired difference of
NDCG@10. `--validation` judges by the validation events instead of the test. The table goes to
stderr, one JSON line to stdout, for `benchmarks/results/zero_shot.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.trained import interval
from feature_store.durable import read_json
from feature_store.errors import ConfigError
from feature_store.protocols import TEST, VALIDATION
from pipelines.ingest import ingest_source
from recsys.config import RunConfig, load_config, parse_config
from recsys.data.examples import Examples
from recsys.distributed import Group, join
from recsys.evaluation.evaluator import Result
from recsys.retrievers.base import VectorRetriever
from recsys.retrievers.recformer import TRAIN, Recformer
from recsys.runs.build import build_model, fit
from recsys.runs.evaluators import judge
from recsys.runs.finished import Run
from recsys.runs.fit import trained_model
from recsys.runs.prepare import prepare

FIGURES = ("NDCG@10", "Recall@10", "MRR@10")
COMPARED = "NDCG@10"
_PLAIN = {"names": False, "separator": True}  # how encoders of sentences were trained


def encoder_folder(given: Path, temporary: ExitStack) -> Path:
    """The folder of an encoder: the one that is given, or what a run has learned of texts.

    Raises ConfigError for a run of another retriever, or one whose vectors are not its encoder's.
    """
    if not (given / "config.toml").exists():
        return given
    config = parse_config(Run(given).config)
    refused = f"{given} is no run of recformer whose width is that of its encoder"
    if config.model_class is not Recformer:
        raise ConfigError(refused)
    model, _ = trained_model(config)
    assert isinstance(model, Recformer)
    if model.config.width != model.tower.encoder.width:  # a map that no encoder's folder holds
        raise ConfigError(refused)
    folder = Path(temporary.enter_context(tempfile.TemporaryDirectory())) / "encoder"
    model.save_encoder(folder)
    return folder


def reader_of(config: RunConfig, encoder: Path | None, options: Mapping[str, Any]) -> RunConfig:
    """The config with a Recformer in place of its retriever, of the width of its encoder; `options`
    are those of `retriever.text`."""
    width = 64
    plain: dict[str, Any] = {}
    if encoder is not None:
        width = int(read_json(encoder / "config.json")["hidden_size"])
        plain = dict(_PLAIN) if (encoder / "modules.json").exists() else {}
        plain["encoder"] = str(encoder)
    length = {"max_length": options["max_items"]} if "max_items" in options else {}
    retriever = {"name": "recformer", "width": width, **length, "text": plain | dict(options)}
    tree = config.to_dict() | {"retriever": retriever}
    tree["trainer"].pop("phases", None)
    return parse_config(tree)


@torch.no_grad()
def untrained(
    config: RunConfig, examples: Examples, group: Group, *, words: bool = False
) -> Recformer:
    """A Recformer whose items are encoded by the weights it is made with, or begins to learn
    with."""
    model = build_model(config, examples)
    assert isinstance(model, Recformer)
    if words:
        model.begin_phase(TRAIN)
    model.to(group.device).eval()
    model.encode_items()
    return model


def arms(
    config: RunConfig,
    encoders: Mapping[str, Path],
    options: Mapping[str, Any],
    examples: Examples,
    group: Group,
) -> Iterator[tuple[str, VectorRetriever]]:
    """By name, one after the other: what needs no encoder, and each encoder as it is."""
    tree = config.to_dict()
    for floor in ({"name": "popularity"}, tree["retriever"]):
        model = build_model(parse_config(tree | {"retriever": floor}), examples)
        fit(model, floor["name"], examples)
        assert isinstance(model, VectorRetriever)
        yield floor["name"], model.to(group.device)
    small = reader_of(config, None, options)
    yield "random", untrained(small, examples, group)
    yield "words", untrained(small, examples, group, words=True)
    for name, folder in encoders.items():
        yield name, untrained(reader_of(config, folder, options), examples, group)


def ordered(result: Result) -> dict[str, np.ndarray]:
    """The figures of users in the order of their rows."""
    order = np.argsort(result.users["user"])
    return {name: result.users[name][order] for name in FIGURES}


def measure(
    config: RunConfig,
    encoders: Mapping[str, Path],
    options: Mapping[str, Any],
    role: str,
    group: Group,
) -> dict[str, Any]:
    """Figures of all arms on the events of a role."""
    ingest_source(config.data, config.store_folder)
    examples = prepare(reader_of(config, None, options))
    judged = judge(config, examples, role, group)
    figures: dict[str, Any] = {}
    popular: np.ndarray | None = None
    for name, model in arms(config, encoders, options, examples, group):
        started = time.perf_counter()
        users = ordered(judged(model))
        popular = users[COMPARED] if popular is None else popular
        figures[name] = {figure: interval(values, 1, 4) for figure, values in users.items()} | {
            "over_popularity": interval(users[COMPARED] - popular, 1, 4),
            "seconds": round(time.perf_counter() - started, 1),
        }
        print(f"{name:>16}  {told(figures[name])}", file=sys.stderr, flush=True)
    return {
        "log": config.name,
        "protocol": examples.summary.protocol,
        "protocol_fingerprint": examples.summary.fingerprint,
        "role": role,
        "users": len(popular) if popular is not None else 0,
        "arms": figures,
    }


def told(figures: Mapping[str, Any]) -> str:
    """A row of the table."""
    parts = (
        "{} {:.4f} ({:.4f} to {:.4f})".format(name, *figures[name])
        for name in (*FIGURES, "over_popularity")
    )
    return "  ".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Measure all, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="a TOML of text_knn over the log")
    parser.add_argument("overrides", nargs="*", help="such as data.path=FOLDER")
    parser.add_argument("--encoder", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument(
        "--text", type=json.loads, default={}, help='options of retriever.text, as JSON: {"...": 1}'
    )
    parser.add_argument("--validation", action="store_true", help="instead of the test")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    given = dict(pair.split("=", 1) for pair in args.encoder)
    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        where = [f"output={temporary}", "tracking.enabled=false"]
        config = load_config(args.config, [*where, *args.overrides])
        encoders = {name: encoder_folder(Path(path), stack) for name, path in given.items()}
        group = stack.enter_context(join(args.device))
        role = VALIDATION if args.validation else TEST
        measured = measure(config, encoders, args.text, role, group)
    print(json.dumps({"benchmark": "zero_shot", "encoders": given, "text": args.text, **measured}))


if __name__ == "__main__":
    main()
