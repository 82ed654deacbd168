"""What may differ between a checkpoint and the model that it is loaded into, and what may not."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from conformance import batch_from, fresh, rows_of, small, trainer_of, training
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.vocabulary import Vocabulary
from planted import Shape, write_planted
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.embeddings.options import PerFeature, TableConfig, Unified
from recsys.embeddings.tables import Embeddings
from recsys.training import checkpoint
from recsys.training.growth import unwrap
from recsys.training.options import OptimizerConfig
from recsys.training.trainer import Trainer

TABLES = {"replicated": PerFeature(), "sharded": PerFeature(shard_above_mb=0)}
UNIFIED = Unified(budget_mb=0.006)
NEW_USERS, NEW_ITEMS = [7, 2001, 2002], ["aa", "i20x", "zz"]  # before, between and behind the old


@pytest.fixture(scope="module")
def grown(
    planted: dict[Shape, Examples], planted_log: EventLog, tmp_path_factory: pytest.TempPathFactory
) -> dict[Shape, Examples]:
    """The planted examples once more users and items have come, known ids at their rows."""
    folder = tmp_path_factory.mktemp("grown")
    shutil.copytree(planted_log.folder, folder / "log")
    log, day = EventLog.open(folder / "log"), datetime(2024, 2, 1)
    events = [
        (user, item, day, 5.0) for user in NEW_USERS for item in [*NEW_ITEMS, "i03", "i10", "i17"]
    ]
    names = log.schema.events_schema().names
    log.append(pa.table(dict(zip(names, zip(*events, strict=True), strict=True))))
    found: dict[Shape, Examples] = {}
    for shape, old in planted.items():
        base = {
            path.stem: Vocabulary.load(path) for path in (old.folder / "vocabulary").glob("*.arrow")
        }
        found[shape] = write_planted(log, folder / shape, shape, base=base)
    return found


def train(
    name: str,
    examples: Examples,
    folder: Path,
    group: Group,
    embeddings: Any = None,
    **options: Any,
) -> Trainer:
    """A trainer that has made a few steps, each table among the things that moved."""
    config = small(name, **options)
    trainer = trainer_of(config, examples, folder, group, training(steps=6), embeddings=embeddings)
    trainer.fit()
    return trainer


def other(
    name: str,
    examples: Examples,
    folder: Path,
    group: Group,
    embeddings: Any = None,
    **options: Any,
) -> Trainer:
    """A trainer of a model that may differ, before its first step."""
    trainer = options.pop("trainer", {})
    return trainer_of(
        small(name, **options),
        examples,
        folder,
        group,
        training(steps=6, **trainer),
        embeddings=embeddings,
        seed=5,
    )


def load(trainer: Trainer, folder: Path, group: Group, **options: Any) -> Any:
    path = checkpoint.newest(folder)
    assert path is not None
    return checkpoint.load(path, trainer.model, trainer.optimizer, group, **options)[1]


def tables(trainer: Trainer) -> dict[str, Tensor]:
    """Whole tables, by name."""
    found = checkpoint.tensors_of(trainer.model, None, trainer.group)["model"]
    return {n.split(".")[-2]: _whole(v) for n, v in found.items() if ".tables." in n}


def states(trainer: Trainer) -> dict[str, dict[str, Tensor]]:
    """State of the optimizers of tables, by the table's name."""
    found = checkpoint.tensors_of(trainer.model, trainer.optimizer, trainer.group)["optimizer"]
    return {
        name.split(".")[-2]: {key.split(".")[-1]: _whole(v) for key, v in state.items()}
        for name, state in found.items()
        if ".tables." in name
    }


def _whole(value: Any) -> Tensor:
    return (value.local_tensor() if hasattr(value, "local_tensor") else value).clone()


@torch.no_grad()
def logits(trainer: Trainer, examples: Examples) -> Tensor:
    ranker: Any = unwrap(trainer.model).eval()
    return ranker.predict(batch_from(ranker, rows_of(ranker, examples).slice(0, 50)))


# -- more ids, larger tables -----------------------------------------------------------------


@pytest.mark.parametrize("kind", list(TABLES))
@pytest.mark.parametrize("name", ["sasrec", "two_tower", "dcn"])
def test_new_ids_get_rows_and_known_ones_keep_theirs(
    name: str,
    kind: str,
    planted: dict[Shape, Examples],
    grown: dict[Shape, Examples],
    group: Group,
    tmp_path: Path,
) -> None:
    shape: Shape = {"sasrec": "sequences", "two_tower": "events", "dcn": "labelled"}[name]  # type: ignore[assignment]
    before, after = planted[shape], grown[shape]
    first = train(name, before, tmp_path, group, TABLES[kind])
    second = other(name, after, tmp_path / "second", group, TABLES[kind])
    initial = tables(second)
    changes = load(second, tmp_path, group)
    added = {"item_id": len(NEW_ITEMS), "user_id": len(NEW_USERS)}
    expected = {f: n for f, n in added.items() if f in tables(first)}
    assert {f: n for f, n in changes.new_ids.items() if f in added} == expected
    old, new = tables(first), tables(second)
    for table in new:
        known = len(old[table])
        assert torch.equal(new[table][:known], old[table])
        assert torch.equal(new[table][known:], initial[table][known:])
        assert len(new[table]) == known + added.get(table, 0)
    for table, state in states(second).items():
        for key, value in state.items():
            trained = states(first)[table][key]
            if value.dim():
                assert torch.equal(value[: len(trained)], trained), (table, key)
                assert not value[len(trained) :].any()
    raw = pa.array(["i07", "aa"])
    rows = after.vocabulary("item_id").encode(raw)
    assert rows[0] == before.vocabulary("item_id").encode(raw)[0] and rows[1] >= len(old["item_id"])


def test_a_training_goes_on_over_a_log_that_has_grown(
    planted: dict[Shape, Examples], grown: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    """Its position within an epoch means nothing there, and it says so."""
    from conformance import Recorder

    train("sasrec", planted["sequences"], tmp_path, group)
    heard = Recorder()
    again = trainer_of(
        small("sasrec"), grown["sequences"], tmp_path, group, training(epochs=2), listener=heard
    )
    progress = again.fit(resume=True)
    assert len(heard.losses) == 2 * len(again.reader) and progress.step == 6 + len(heard.losses)
    assert heard.notes == [
        "3 new ids of item_id",
        "table item_id has 46 rows, 43 before",
        "the examples are others than before: the epoch begins anew",
        "goes on from step 6, in epoch 1 of 2",
    ]


def test_hashed_ids_stay_where_they_are_whatever_comes(
    planted: dict[Shape, Examples], grown: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    first = train("dcn", planted["labelled"], tmp_path, group, UNIFIED)
    second = other("dcn", grown["labelled"], tmp_path / "second", group, UNIFIED)
    load(second, tmp_path, group)
    one: Any = unwrap(first.model).eval()
    two: Any = unwrap(second.model).eval()
    batch = batch_from(one, rows_of(one, planted["labelled"]).slice(0, 50))
    with torch.no_grad():
        torch.testing.assert_close(two.predict(batch), one.predict(batch))


@pytest.mark.parametrize("kind", list(TABLES))
def test_a_table_can_be_made_larger(
    kind: str, planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    examples = planted["events"]
    first = train("two_tower", examples, tmp_path, group, TABLES[kind])
    larger = TABLES[kind].model_copy(update={"tables": {"item_id": TableConfig(rows=100)}})
    second = other("two_tower", examples, tmp_path / "second", group, larger)
    assert load(second, tmp_path, group).grown == {"item_id": (43, 100)}
    assert torch.equal(tables(second)["item_id"][:43], tables(first)["item_id"])
    plain = fresh(small("two_tower"), examples, larger, seed=5)
    checkpoint.load_unsharded(checkpoint.newest(tmp_path), plain)  # type: ignore[arg-type]
    weights = next(m for m in plain.modules() if isinstance(m, Embeddings)).plain().tables
    assert torch.equal(weights["item_id"].weight, tables(second)["item_id"])
    with pytest.raises(DataError, match="table item_id has 100 rows, now only 43"):
        second.fit()
        smaller = other("two_tower", examples, tmp_path / "x", group, TABLES[kind])
        load(smaller, tmp_path / "second", group)


# -- features that come and go ---------------------------------------------------------------

FEW = {"user_features": ("club",), "item_features": ("item_id", "genre")}
MORE = {"user_features": ("club", "badges", "age"), "item_features": ("item_id", "words", "genre")}


@pytest.mark.parametrize("kind", list(TABLES))
def test_a_new_feature_is_without_effect_until_it_has_learned(
    kind: str, planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    examples = planted["labelled"]
    first = train("dcn", examples, tmp_path, group, TABLES[kind], **FEW)
    second = other("dcn", examples, tmp_path / "second", group, TABLES[kind], **MORE)
    with pytest.raises(DataError, match=r"\+badges, \+words, \+age.*allow_feature_changes=true"):
        load(second, tmp_path, group)
    changes = load(second, tmp_path, group, allow_features=True)
    assert changes.added == ["badges", "words", "age"] and changes.dropped == []
    torch.testing.assert_close(logits(second, examples), logits(first, examples))
    before = logits(second, examples)
    second.fit()
    assert not torch.allclose(logits(second, examples), before)
    moved = (
        tables(second)["words"]
        - tables(other("dcn", examples, tmp_path / "z", group, **MORE))["words"]
    )
    assert moved.any()


@pytest.mark.parametrize("kind", list(TABLES))
def test_a_dropped_feature_leaves_the_others_as_they_are(
    kind: str, planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    """As if its vectors were 0."""
    examples = planted["labelled"]
    numberless = {**MORE, "user_features": ("club", "badges")}
    first = train("dcn", examples, tmp_path, group, TABLES[kind], **numberless)
    second = other("dcn", examples, tmp_path / "second", group, TABLES[kind], **FEW)
    changes = load(second, tmp_path, group, allow_features=True)
    assert changes.dropped == ["badges", "words"]
    for name, value in checkpoint.tensors_of(first.model, None, group)["model"].items():
        if name.split(".")[-2] in ("badges", "words"):
            parts = (
                [s.tensor for s in value.local_shards()]
                if hasattr(value, "local_shards")
                else [value]
            )
            for part in parts:
                part.zero_()
    torch.testing.assert_close(logits(second, examples), logits(first, examples))


def test_towers_take_new_features_too(
    planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    examples = planted["events"]
    first = train("two_tower", examples, tmp_path, group, **FEW)
    second = other("two_tower", examples, tmp_path / "second", group, **MORE)
    load(second, tmp_path, group, allow_features=True)
    one, two = (unwrap(t.model).eval() for t in (first, second))
    rows = torch.arange(examples.num_items)
    torch.testing.assert_close(two.item_matrix(rows), one.item_matrix(rows))  # type: ignore[operator]
    for key in ("exp_avg", "exp_avg_sq"):
        weights = [states_of(t, "item_tower.0.weight")[key] for t in (first, second)]
        torch.testing.assert_close(weights[1][:, :16], weights[0][:, :16])  # item_id
        torch.testing.assert_close(weights[1][:, 32:], weights[0][:, 16:])  # genre, behind words
        assert not weights[1][:, 16:32].any()


def states_of(trainer: Trainer, name: str) -> dict[str, Tensor]:
    found = checkpoint.tensors_of(trainer.model, trainer.optimizer, trainer.group)["optimizer"]
    return found[name]


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": UNIFIED}, "layout per_feature, now unified"),
        ({"width": 8}, "feature user_id has the width 16, now 8"),
        (
            {"embeddings": PerFeature(tables={"genre": TableConfig(width=4)})},
            "feature genre has the width 16, now 4",
        ),
        (
            {"embeddings": PerFeature(shard_above_mb=0)},
            "was trained by a dense optimizer, now by rowwise_adagrad; go on with the same",
        ),
        (
            {"trainer": {"optimizer": OptimizerConfig(name="sgd")}},
            "what is dense was trained by adam, now by sgd",
        ),
        ({"cross_layers": 1, "hidden": (16, 8)}, "Size mismatch"),
    ],
)  # fmt: skip
def test_all_else_is_refused_by_name(
    change: dict[str, Any],
    message: str,
    planted: dict[Shape, Examples],
    group: Group,
    tmp_path: Path,
) -> None:
    examples = planted["labelled"]
    train("dcn", examples, tmp_path, group)
    second = other("dcn", examples, tmp_path / "second", group, **change)
    with pytest.raises(DataError, match=message) as caught:
        load(second, tmp_path, group, allow_features=True)
    assert "\n" not in str(caught.value)


def test_other_ids_are_refused(
    planted: dict[Shape, Examples], grown: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    train("sasrec", grown["sequences"], tmp_path, group)
    with pytest.raises(DataError, match="the ids of feature item_id are others"):
        load(other("sasrec", planted["sequences"], tmp_path / "x", group), tmp_path, group)


def test_only_a_model_that_hashes_depends_on_how(
    planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    """A checkpoint before hash version 3 is refused by name, or read where nothing is hashed."""
    for embeddings in (None, UNIFIED):
        train("dcn", planted["labelled"], tmp_path / "run", group, embeddings)
        folder = checkpoint.newest(tmp_path / "run")
        assert folder is not None
        state = json.loads((folder / "state.json").read_text())
        state["model"]["hash_version"] = 2
        (folder / "state.json").write_text(json.dumps(state))
        again = other("dcn", planted["labelled"], tmp_path / "x", group, embeddings)
        if embeddings is None:
            load(again, tmp_path / "run", group)
        else:
            with pytest.raises(DataError, match="hash_version 2, now 3"):
                load(again, tmp_path / "run", group)
        shutil.rmtree(tmp_path / "run")


def test_another_number_of_tables_is_refused(
    planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    train("dcn", planted["labelled"], tmp_path, group, UNIFIED)
    two = UNIFIED.model_copy(update={"unified_tables": 2})
    with pytest.raises(DataError, match="is looked up in other rows, or in another table"):
        load(other("dcn", planted["labelled"], tmp_path / "x", group, two), tmp_path, group)


def test_a_hashed_table_of_another_size_is_refused(
    planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    train("dcn", planted["labelled"], tmp_path, group, UNIFIED)
    larger = UNIFIED.model_copy(update={"budget_mb": 0.008})
    with pytest.raises(DataError, match=r"table unified has 187 rows, now 250, .* hashed over"):
        load(other("dcn", planted["labelled"], tmp_path / "x", group, larger), tmp_path, group)


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [("unisrec", "sequences", {}), ("two_tower", "events", {"text": {}})],
)
def test_frozen_vectors_of_a_catalogue_do_not_grow_with_it(
    name: str,
    shape: Shape,
    options: dict[str, Any],
    planted: dict[Shape, Examples],
    grown: dict[Shape, Examples],
    group: Group,
    tmp_path: Path,
) -> None:
    """Another catalogue's texts span another space."""
    train(name, planted[shape], tmp_path, group, **options)
    again = other(name, planted[shape], tmp_path / "same", group, **options)
    load(again, tmp_path, group)
    later = other(name, grown[shape], tmp_path / "later", group, **options)
    with pytest.raises(DataError, match=r"vectors of 43 items, now of 46; train anew") as caught:
        load(later, tmp_path, group)
    assert "\n" not in str(caught.value)
