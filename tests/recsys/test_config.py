"""RunConfig: one strict tree; whatever it cannot hold is named in one line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from feature_store.errors import ConfigError
from recsys.config import RunConfig, load_config, parse_config
from recsys.evaluation.options import EvaluationConfig
from recsys.retrievers import RETRIEVERS
from recsys.retrievers.sasrec import SASRecConfig


def tree(**sections: Any) -> dict[str, Any]:
    return {
        "name": "r",
        "data": {"source": "synthetic"},
        "retriever": {"name": "sasrec"},
        **sections,
    }


def error_of(config: dict[str, Any], overrides: list[str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(config, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("sections", "key", "known"),
    [
        ({"trainr": {}}, "trainr: did you mean trainer?", "data, embeddings, engine, evaluation"),
        (
            {"trainer": {"epoch": 3}},
            "trainer.epoch: did you mean trainer.epochs?",
            "checkpoint_every",
        ),
        (
            {"trainer": {"optimizer": {"lr": 1}}},
            "trainer.optimizer.lr",
            "learning_rate, mini_batch_aware_decay, name",
        ),
        (
            {"export": {"index": {"kind": "faiss", "factroy": "Flat"}}},
            "export.index.factroy: did you mean export.index.factory?",
            "recall_target",
        ),
        # within the arms of unions the keys of the chosen arm are named
        (
            {"retriever": {"name": "sasrec", "widht": 8}},
            "retriever.widht: did you mean retriever.width?",
            "block, blocks, dropout",
        ),
        ({"retriever": {"name": "popularity", "width": 8}}, "retriever.width", "known: name"),
        (
            {"split": {"protocol": "global_time", "test_day": 3}},
            "split.test_day: did you mean split.test_days?",
            "validation_start",
        ),
        ({"split": {"protocol": "leave_one_out", "test_days": 3}}, "split.test_days", "min_label"),
        (
            {"data": {"source": "synthetic", "user": 3}},
            "data.user: did you mean data.users?",
            "seed",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_known_ones(
    sections: dict[str, Any], key: str, known: str
) -> None:
    message = error_of(tree(**sections))
    assert f"unknown key {key}" in message
    assert known in message


@pytest.mark.parametrize(
    ("sections", "meant"),
    [
        ({"trainer": {"learning_rate": 1}}, "trainer.optimizer.learning_rate"),
        ({"learning_rate": 1}, "trainer.optimizer.learning_rate"),
        ({"optimizer": {"name": "sgd"}}, "trainer.optimizer"),
        ({"retriever": {"name": "sasrec", "epochs": 3}}, "trainer.epochs or daily.epochs"),
        ({"widht": 3}, "retriever.width"),
        ({"embeddings": {"tables": {"item": {"rwos": 9}}}}, "embeddings.tables.item.rows"),
        (
            {"retriever": {"name": "ada_retrieval", "backbone": {"name": "hstu", "hed_width": 3}}},
            "retriever.backbone.head_width",
        ),
    ],
)
def test_a_key_in_the_wrong_section_is_told_the_right_one(
    sections: dict[str, Any], meant: str
) -> None:
    assert f": did you mean {meant}? known: " in error_of(tree(**sections))


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        (
            {"split": {"protocol": "leave_one_out", "test_days": 3}},
            "split.test_days: it goes with split.protocol = 'global_time'",
        ),
        (
            {"export": {"index": {"kind": "exact", "factory": "Flat"}}},
            "export.index.factory: it goes with export.index.kind = 'faiss'",
        ),
        (
            {"export": {"index": {"kind": "faiss", "shortlist": 9}}},
            "export.index.shortlist: it goes with export.index.kind = 'pq' or 'prefix'",
        ),
        (
            {"retriever": {"name": "sasrec", "loss": {"name": "bce", "calibration": 0.5}}},
            "retriever.loss.calibration: it goes with retriever.loss.name = 'gbce'",
        ),
        (
            {
                "retriever": {
                    "name": "multi_interest",
                    "extractor": {"name": "hcn", "iterations": 2},
                }
            },
            "retriever.extractor.iterations: it goes with "
            "retriever.extractor.name = 'mind' or 'comirec_dr'",
        ),
        (
            {"retriever": {"name": "graph", "propagation": {"name": "none", "layers": 2}}},
            "retriever.propagation.layers: it goes with "
            "retriever.propagation.name = 'lightgcn' or 'sheaf'",
        ),
        (
            {"embeddings": {"budget_mb": 2.0}},
            "embeddings.budget_mb: it goes with embeddings.layout = 'hashed' or 'unified'",
        ),
        (
            {"embeddings": {"layout": "hashed", "budget_mb": 2.0, "probes": 4}},
            "embeddings.probes: it goes with embeddings.layout = 'unified'",
        ),
    ],
)
def test_an_option_of_another_choice_is_told_where_it_goes(
    sections: dict[str, Any], told: str
) -> None:
    assert f"unknown key {told}; known: " in error_of(tree(**sections))


def test_a_name_alone_is_a_choice_with_its_defaults() -> None:
    short = parse_config(tree(retriever={"name": "sasrec", "loss": "gbce"}))
    long = parse_config(tree(retriever={"name": "sasrec", "loss": {"name": "gbce"}}))
    assert short == long
    other = parse_config(short.to_dict(), ["retriever.loss.calibration=0.5"])
    assert other == parse_config(
        tree(retriever={"name": "sasrec", "loss": "gbce"}), ["retriever.loss.calibration=0.5"]
    )
    assert other != short
    message = error_of(tree(retriever={"name": "sasrec", "loss": "gbc"}))
    assert "retriever.loss.name: 'gbc' is not known (did you mean gbce?)" in message


@pytest.mark.parametrize(
    ("ks", "slice_k", "cut"), [((1, 10, 20), None, 10), ((1, 5), None, 5), ((1, 5), 1, 1)]
)
def test_figures_in_slices_are_cut_where_lists_are(
    ks: tuple[int, ...], slice_k: int | None, cut: int
) -> None:
    assert EvaluationConfig(ks=ks, slice_k=slice_k).slice_cut == cut


def test_known_keys_of_another_arm_are_not_offered() -> None:
    message = error_of(tree(split={"protocol": "leave_one_out", "test_days": 3}))
    assert "validation_days" not in message


@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        ({"reader": {"batch_size": 0}}, ("reader.batch_size: must be at least 1, got 0",)),
        (
            {"split": {"protocol": "leave_one_out", "seen": "no"}},
            ("split.seen: 'no' is not known; choose one of: exclude, include",),
        ),
        (
            {"retriever": {"name": "sas"}},
            ("retriever.name", "'sas'", "sasrec, text_knn, tifu_knn, two_tower, unisrec"),
        ),
        ({"retriever": {"name": "sasrek"}}, ("'sasrek' is not known (did you mean sasrec?)",)),
        ({"ranker": {"name": "dccn"}}, ("ranker.name", "'dccn'", "did you mean dcn?")),
        ({"baselines": ["eese"]}, ("baselines.0.name", "'eese'", "did you mean ease?")),
        ({"data": {"source": "movielense"}}, ("data.source", "did you mean movielens?")),
        (
            {"retriever": {}},
            (
                "retriever.name is missing",
                "recent_popularity, recformer, sasrec, text_knn, tifu_knn, two_tower, unisrec",
            ),
        ),
        (
            {"split": {"seen": "include"}},
            ("split.protocol is missing", "item_holdout, last_lists, leave_one_out"),
        ),
        (
            {"retriever": {"name": "ada_retrieval", "freeze_backbone": True}},
            ("retriever.freeze_backbone", "set trainer.start_from"),
        ),
        (
            {"export": {"index": {"knd": "x"}}},
            ("export.index.kind is missing (is it knd?)", "faiss"),
        ),
        ({"export": {"index": {"kind": "hsnw"}}}, ("export.index.kind: 'hsnw'", "mean hnsw?")),
        (
            {"export": {"index": {"kind": "prefix", "prefix": 8}}},
            ("export.index.prefix", "8 is not a width", "none"),
        ),
        (
            {"retriever": {"name": "ease"}, "export": {"index": {"kind": "faiss"}}},
            ("export.index.kind", "choose 'exact'"),
        ),
        (
            {"retriever": {"name": "ease"}, "trainer": {"metric": "NDGC@10"}},
            ("trainer.metric: 'NDGC@10' is not measured", "NDCG@10"),
        ),
        ({"evaluation": {"ks": [5, 1]}}, ("evaluation.ks", "ascending", "[5, 1]")),
        (
            {"trainer": {"precision": "fp8"}},
            ("trainer.precision: 'fp8' is not known", "bf16, fp32"),
        ),
        ({"name": "a/b"}, ("name", "'a/b'")),
        ({"trainer": 3}, ("trainer: must be a table, got 3",)),
        ({"retriever": 3}, ("retriever: must be a table", "got 3", "choose one of: ada_")),
        ({"data": {"source": 7}}, ("data.source: 7 is not known; choose one of: amazon, ",)),
        ({"trainer": {"epochs": 2.5}}, ("trainer.epochs: must be a whole number, got 2.5",)),
        ({"trainer": {"clip_norm": "much"}}, ("trainer.clip_norm: must be a number, got 'much'",)),
        ({"trainer": {"since": "now"}}, ("trainer.since: must be a moment such as 2024-",)),
        ({"evaluation": {"ks": 5}}, ("evaluation.ks: must be a list, got 5",)),
        ({"evaluation": {"ks": [1, "x"]}}, ("evaluation.ks.1: must be a whole number",)),
        ({"quarantine": "perhaps"}, ("quarantine: must be true or false, got 'perhaps'",)),
        ({"embeddings": {"layout": "hashed"}}, ("budget_mb is missing: layout = 'hashed' needs",)),
        ({"embeddings": {"layout": "unified"}}, ("budget_mb is missing: layout = 'unified'",)),
        ({"embeddings": {"init_std": 0.1, "init_range": 0.1}}, ("embeddings: init_std and",)),
        ({"evaluation": {"slice_k": 7}}, ("slice_k = 7 is not among ks: choose one of 1, 5, 10",)),
        (
            {"retriever": {"name": "knn_embed", "mode": "mixture", "mixing_weight": 0.5}},
            ("mode = 'mixture' has no use for mixing_weight",),
        ),
        (
            {"trainer": {"optimizer": {"name": "sgd", "beta2": 0.9}}},
            ("trainer.optimizer: beta2 is Adam's",),
        ),
        ({"trainer": {"optimizer": {"final": 0.1}}}, ("final goes with a schedule",)),
        ({"split": {"protocol": "random", "fold": 1}}, ("split: fold chooses",)),
        ({"split": {"protocol": "random", "folds": 5, "test": 0.2}}, ("leave test out",)),
        ({"tune": {"space": {"x": 3}}}, ("tune.space.x", "got 3")),
    ],
)
def test_an_impossible_value_is_named_with_what_is_allowed(
    sections: dict[str, Any], parts: tuple[str, ...]
) -> None:
    message = error_of(tree(**sections))
    assert all(part in message for part in parts), message


def test_every_mistake_of_a_file_is_told_at_once() -> None:
    message = error_of({"data": {"source": "synthetic"}, "trainer": {"epochs": 0, "x": 1}})
    for key in ("name", "trainer.epochs", "trainer.x"):
        assert f"config: {key}" in message or f"unknown key {key}" in message


def test_a_run_has_one_model() -> None:
    both = tree() | {"ranker": {"name": "dcn"}}
    neither = {name: part for name, part in tree().items() if name != "retriever"}
    for wrong in (both, neither):
        assert "give either [retriever], one of popularity, " in error_of(wrong)
        assert "or [ranker], one of dcn" in error_of(wrong)


def test_overrides_are_read_as_toml_values_or_as_text() -> None:
    config = parse_config(
        tree(),
        [
            "trainer.epochs=3",
            "trainer.refit=true",
            "trainer.optimizer.learning_rate=1e-2",
            "evaluation.ks=[1, 10]",
            "name=abc",
            'output="x y"',
            "split.protocol=global_time",
            "trainer.clip_norm=2.5",
            "split.test_start=2024-01-02T00:00:00Z",
            "split.validation_start=2024-01-01",
        ],
    )
    assert (config.trainer.epochs, config.trainer.refit) == (3, True)
    assert config.trainer.optimizer.learning_rate == 0.01
    assert config.evaluation.ks == (1, 10)
    assert config.folder == Path("x y/abc")
    assert config.trainer.clip_norm == 2.5
    assert config.split.test_start.hour == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.epochs", "'trainer.epochs' is not an override: write section.key=value"),
        ("=3", "'=3' is not an override"),
        ("name.x=3", "'name.x=3': name is a value, not a section"),
        ("trainer.epochs=many", "trainer.epochs: .*got 'many'"),
        ("trainer.epohcs=3", r"trainer.epohcs: did you mean trainer.epochs\?"),
        ("trainer..epochs=3", "unknown key trainer.; known: "),
    ],
)
def test_nonsense_in_an_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(tree(), [override])


def test_overrides_leave_the_callers_tree_alone() -> None:
    mine = tree(trainer={"epochs": 1})
    assert parse_config(mine, ["trainer.epochs=2", "reader.lanes=4"]).trainer.epochs == 2
    assert mine == tree(trainer={"epochs": 1})


def test_another_kind_leaves_the_options_of_the_one_before_behind() -> None:
    embeddings = {"layout": "unified", "budget_mb": 1.5, "init_std": 0.1}
    config = parse_config(tree(embeddings=embeddings), ["embeddings.layout=per_feature"])
    assert config.embeddings.model_dump(include={"layout", "init_std"}) == {
        "layout": "per_feature",
        "init_std": 0.1,
    }
    with pytest.raises(ConfigError, match="budget_mb"):  # said afterwards it is meant
        parse_config(
            tree(embeddings=embeddings), ["embeddings.layout=per_feature", "embeddings.budget_mb=2"]
        )


def test_the_resolved_tree_goes_to_toml_and_back(tmp_path: Path) -> None:
    config = parse_config(
        tree(
            split={"protocol": "global_time", "test_start": "2024-01-02T00:00:00Z",
                   "validation_start": "2024-01-01T00:00:00", "event_types": ["buy"]},
            embeddings={"layout": "unified", "budget_mb": 1.5},
            trainer={"clip_norm": 1.0, "optimizer": {"schedule": "cosine"}},
        )
    )  # fmt: skip
    text = config.to_toml()
    (tmp_path / "config.toml").write_text(text)
    again = load_config(tmp_path / "config.toml")
    assert again == config and again.fingerprint == config.fingerprint
    # what was left to defaults is written out: a later default cannot change an old run
    assert tomllib.loads(text)["retriever"]["width"] == SASRecConfig().width


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"name = ", "is not TOML"), (b"name = '\xff'", "is not TOML"), (None, "cannot read")],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"(?s)run\.toml.*{message}|{message}.*run\.toml"):
        load_config(path)


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("pipelines/configs/*.toml")))
def test_the_configs_we_ship_are_valid(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_the_json_schema_describes_every_key() -> None:
    schema = RunConfig.model_json_schema()
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    assert "Rows of a batch" in json.dumps(schema)
    assert {"SASRecConfig", "GlobalTime", "Synthetic"} <= set(schema["$defs"])
    retriever = schema["properties"]["retriever"]["anyOf"][0]
    assert retriever["discriminator"]["propertyName"] == "name"
    assert set(retriever["discriminator"]["mapping"]) == set(RETRIEVERS)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "data.users=77",
        "split={protocol='leave_one_out', seen='include'}",
        "retriever.width=8",
        "reader.batch_size=7",
        "embeddings.init_std=0.1",
        "trainer.optimizer.learning_rate=0.5",
        "quarantine=true",
    ],
)
def test_what_changes_the_weights_changes_the_fingerprint(override: str) -> None:
    assert parse_config(tree(), [override]).fingerprint != parse_config(tree()).fingerprint


@pytest.mark.parametrize(
    "override",
    ["name=other", "output=elsewhere", "tracking.enabled=false", "tracking.experiment=x",
     "export.golden=3", "evaluation.batch_size=9"],
)  # fmt: skip
def test_what_leaves_the_weights_alone_leaves_the_fingerprint(override: str) -> None:
    assert parse_config(tree(), [override]).fingerprint == parse_config(tree()).fingerprint


def test_runs_are_tracked_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = parse_config(tree(output="out"))
    assert config.tracking_uri == "sqlite:///out/mlflow.db"
    assert parse_config(tree(), ["tracking.uri=http://a"]).tracking_uri == "http://a"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://b")
    assert parse_config(tree(), ["tracking.uri=http://a"]).tracking_uri == "http://b"
