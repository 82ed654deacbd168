"""What is learned of the words of one shop finds things in another, as benchmarks measure it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from benchmarks import text_objectives, zero_shot
from feature_store.errors import ConfigError
from pipelines.ingest import ingest_source
from recsys.config import load_config
from recsys.distributed import join
from recsys.retrievers.recformer import PRETRAIN, Recformer
from recsys.runs.build import trainable
from recsys.runs.prepare import prepare
from recsys.training import checkpoint

GROUPS = ["red crimson", "blue navy", "green lime", "white ivory", "black coal", "grey ash"]
TEXT = {"width": 16, "layers": 1, "heads": 1, "window": 8, "vocabulary": 400, "dropout": 0.0}
TEXT |= {"max_tokens": 64, "attributes": ["title"], "names": False}


def write_shop(folder: Path, seed: int, users: int) -> Path:
    """Things of six kinds, each under two words that no title has both of. Whoever has a thing of
    one word of a kind takes next a thing of the other."""
    random = np.random.default_rng(seed)
    folder.mkdir()
    titles = [f"{word} {noun}{seed}" for kind in GROUPS for word in kind.split() for noun in "abcd"]
    lines = [json.dumps({"item_id": n, "title": title}) for n, title in enumerate(titles, 1)]
    (folder / "items.jsonl").write_text("\n".join(lines))
    histories = []
    for user in range(users):
        first = 8 * (user % len(GROUPS)) + 4 * (user // len(GROUPS) % 2)
        second = first + (4 if first % 8 == 0 else -4)
        had = np.column_stack([first + random.permutation(4), second + random.permutation(4)])
        had = had.ravel()[:5]
        histories.append(" ".join(map(str, [user + 1, *(item + 1 for item in had)])))
    (folder / "sequences.txt").write_text("\n".join(histories))
    return folder


def write_config(path: Path, shop: Path, retriever: dict[str, object], **sections: object) -> Path:
    tree = {
        "name": "toy",
        "seed": 1,
        "output": str(path.parent / "runs"),
        "data": {"source": "amazon", "path": str(shop)},
        "split": {"protocol": "leave_one_out"},
        "retriever": retriever,
        "evaluation": {"ks": [10]},
        "tracking": {"enabled": False},
        **sections,
    }
    path.write_text(tomli_w.dumps(tree))
    return path


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shops")
    return [write_shop(folder / f"shop{seed}", seed, 240) for seed in (1, 2)]


@pytest.fixture
def learning(shops: list[Path], tmp_path: Path) -> Path:
    """A small Recformer over the first shop."""
    retriever = {"name": "recformer", "width": 16, "max_length": 5, "text": TEXT}
    trainer = {"optimizer": {"learning_rate": 1e-2}}
    path = tmp_path / "learning.toml"
    return write_config(path, shops[0], retriever, reader={"batch_size": 8}, trainer=trainer)


def test_an_encoder_of_another_shop_is_above_popularity(
    shops: list[Path], learning: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By words that nobody had together but there: no title of the second shop has both of a
    pair."""
    config = text_objectives.config_of(load_config(learning), text_objectives.CONTRAST, None)
    ingest_source(config.data, config.store_folder)
    with join("cpu") as group:
        learner = text_objectives.Learner(config, prepare(config), group, tmp_path)
        weights, _ = learner.train(config, PRETRAIN, 30, None)
    model = trainable(config, learner.examples)
    checkpoint.load_unsharded(weights, model)
    assert isinstance(model, Recformer)
    model.save_encoder(tmp_path / "encoder")
    asked = write_config(tmp_path / "asked.toml", shops[1], {"name": "text_knn"})
    text = json.dumps({"attributes": ["title"], "names": False, "max_tokens": 64, "max_items": 1})
    options = ["--encoder", f"shop={tmp_path / 'encoder'}", "--text", text]
    zero_shot.main([str(asked), *options])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    arms = told["arms"]
    assert list(arms) == ["popularity", "text_knn", "random", "words", "shop"]
    assert (told["protocol"], told["role"], told["users"]) == ("leave_one_out", "test", 240)
    recall = {name: arm["Recall@10"][0] for name, arm in arms.items()}
    assert (
        arms["shop"]["over_popularity"][1] > 0.2 and arms["popularity"]["over_popularity"][0] == 0
    )
    # words as they are find things of the newest thing's own word; the whole history, which
    # text_knn reads, has the other one, too
    others = max(recall[name] for name in ("random", "words", "popularity"))
    assert recall["shop"] > 0.9 > 0.5 > others, recall
    other = write_config(tmp_path / "config.toml", shops[1], {"name": "text_knn"})
    with pytest.raises(ConfigError, match="is no run of recformer"):
        zero_shot.encoder_folder(other.parent, ExitStack())


def test_objectives_are_judged_twice_at_equal_steps(
    learning: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--steps", "3", "--fine-tune", "2", "--only", "none", "dupmae"]
    text_objectives.main([str(learning), *options])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert (told["role"], told["steps"], told["fine_tuning_steps"]) == ("validation", 3, 2)
    none, dupmae = told["objectives"]["none"], told["objectives"]["dupmae"]
    assert none["pretraining_seconds"] == 0 < dupmae["pretraining_seconds"]
    assert none["zero_shot"] != dupmae["zero_shot"] != dupmae["fine_tuned"]
    with pytest.raises(SystemExit):
        text_objectives.main([str(learning), "--only", "views"])
    capsys.readouterr()


def test_each_objective_adds_to_the_one_before(learning: Path) -> None:
    config = load_config(learning, ["retriever.pretraining.masked=0.2"])
    made = [
        text_objectives.config_of(config, text_objectives.OBJECTIVES[name] or {}, views)
        for name, views in (("mlm", None), ("contrast", None), ("dupmae", None), ("views", "a"))
    ]
    learned = [each.retriever.pretraining for each in made]  # type: ignore[union-attr]
    assert [each.masked for each in learned] == [0.2] * 4
    assert [each.contrast for each in learned] == [0, 1, 1, 1]
    assert [each.decoder is not None for each in learned] == [False, False, True, True]
    assert [each.views is not None for each in learned] == [False, False, False, True]
