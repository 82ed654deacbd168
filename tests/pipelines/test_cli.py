"""The command line: what it prints, and that every mistake of a user is one line and a status."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import tomli_w

import recsys as recsys_api
from recsys.config import load_config
from recsys.online.places import open_store

Tree = dict[str, Any]
Ask = Callable[..., tuple[Any, str, str]]
VERBS = {
    "run": "ingest if needed, train, evaluate, export, verify",
    "ingest": "Raw input to event log",
    "train": "Train on an ingested log",
    "evaluate": "test figures of a trained run",
    "compare": "Runs side by side",
    "tune": "judged on validation alone",
    "export": "Write and verify the bundle",
    "recommend": "Ask a bundle",
    "serve": "Answer from a bundle over HTTP",
    "doctor": "Can training run here?",
    "config": "full resolved config",
}


@pytest.fixture(scope="module")
def config(tree_of: Callable[..., Tree], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file of a run that trains for an instant."""
    folder = tmp_path_factory.mktemp("cli")
    tree = tree_of(folder / "runs", trainer={"epochs": 1, "steps": 3, "device": "cpu"})
    (folder / "small.toml").write_text(tomli_w.dumps(tree))
    return folder / "small.toml"


@pytest.fixture(scope="module")
def folder(config: Path, recsys: Ask) -> Path:
    """The folder of a finished run, made by the verbs one after the other."""
    for verb in ("ingest", "train", "evaluate", "export"):
        assert recsys(verb, config)[0] == 0
    return config.parent / "runs" / "small"


def assert_refused(answer: tuple[Any, str, str], *fragments: str) -> None:
    """`sys.exit(text)` prints the text to stderr and ends with status 1."""
    message, _, errors = answer
    assert isinstance(message, str) and message.startswith("recsys: "), answer
    assert "\n" not in message and "Traceback" not in errors
    for fragment in fragments:
        assert fragment in message


def test_a_mistake_is_one_line_on_stderr_and_status_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "run", str(tmp_path / "no.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"recsys: cannot read {tmp_path}/no.toml: No such file or directory\n"


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("trainer.epoch=3", ["unknown key trainer.epoch", "did you mean trainer.epochs?"]),
        ("retriever.blokcs=1", ["unknown key retriever.blokcs", "did you mean retriever.blocks?"]),
        ("colour=1", ["unknown key colour", "known: ", "retriever"]),
        ("trainer.epochs=0", ["trainer.epochs", "must be at least 1", "got 0"]),
        ("trainer.epochs=many", ["trainer.epochs", "whole number", "'many'"]),
        ("retriever.name=magic", ["retriever", "sasrec", "two_tower"]),
        ("data.source=nowhere", ["data", "movielens", "synthetic"]),
        ("evaluation.ks=[5,1]", ["evaluation.ks", "ascending"]),
        ("trainer.metric=NDCG@7", ["trainer.metric", "NDCG@7", "NDCG@10"]),
        ('baselines=["magic"]', ["baselines", "magic", "popularity"]),
        ('baselines=["sasrec"]', ["baselines.0.name", "sasrec", "learns by gradient", "ease"]),
        ("baselines=[{name='ease', l3=1}]", ["baselines", "l3", "l2"]),
        ("name=a/b", ["name", "a/b"]),
        ("nonsense", ["'nonsense' is not an override", "section.key=value"]),
    ],
)
def test_configs_that_cannot_be_meant(
    recsys: Ask, config: Path, override: str, fragments: list[str]
) -> None:
    assert_refused(recsys("config", config, override), *fragments)


def test_options_that_do_not_go_together(recsys: Ask, config: Path) -> None:
    overrides = ("retriever={name='ease'}", "export.index.kind=faiss")
    assert_refused(recsys("config", config, *overrides), "export.index.kind", "ease", "'exact'")


def test_input_that_is_not_there(recsys: Ask, config: Path, folder: Path, tmp_path: Path) -> None:
    elsewhere = f"output={tmp_path}"
    assert_refused(recsys("config", tmp_path), "cannot read", "config.toml")
    (tmp_path / "torn.toml").write_text("name = ")
    assert_refused(recsys("run", tmp_path / "torn.toml"), "torn.toml is not TOML")
    (tmp_path / "ml.toml").write_text(
        'name = "x"\n[data]\nsource = "movielens"\npath = "nowhere"\n'
        '[retriever]\nname = "popularity"\n[tracking]\nenabled = false\n'
    )
    assert_refused(recsys("run", tmp_path / "ml.toml", elsewhere), "nowhere")
    assert_refused(recsys("train", config, elsewhere), "recsys ingest")
    store = f"store={load_config(config).store_folder}"
    assert_refused(
        recsys("evaluate", config, elsewhere, store), "holds no checkpoint", "recsys train"
    )
    assert_refused(recsys("recommend", tmp_path, "--user", 1), "is not a bundle")
    stranger = ("recommend", folder, "--user", 999_999)
    assert_refused(recsys(*stranger, "--strict"), "unknown users: 999999")
    status, printed, said = recsys(*stranger, "--user", 7, "-k", 3)
    assert status == 0 and "fallback" in printed and "1 of those asked for" in said
    assert_refused(recsys("recommend", folder, "--user", "x"), "users must be of type int64")
    assert_refused(recsys("recommend", folder), "give either users or requests")
    missing = tmp_path / "no.parquet"
    assert_refused(recsys("recommend", folder, "--requests", missing), str(missing))
    missing.write_text("text")
    assert_refused(recsys("recommend", folder, "--requests", missing), str(missing))
    assert_refused(recsys("config"), "name a config, or ask for --schema")


def test_weights_of_another_model_are_refused(recsys: Ask, folder: Path) -> None:
    before = (folder / "config.toml").read_bytes()
    assert_refused(recsys("evaluate", folder, "retriever.width=24"), "another config")
    assert_refused(recsys("export", folder, "retriever.width=24"), "another config")
    assert (folder / "config.toml").read_bytes() == before


@pytest.mark.parametrize("words", [["recommend", ".", "-k", "0"], ["bake"], ["run"], ["run", "-x"]])
def test_wrong_usage_ends_with_status_2(recsys: Ask, words: list[str]) -> None:
    status, _, errors = recsys(*words)
    assert status == 2 and "Traceback" not in errors and "recsys" in errors.lower()


def test_help_says_what_each_verb_does(recsys: Ask) -> None:
    status, out, _ = recsys("--help")
    assert status == 0
    for verb, meaning in VERBS.items():
        assert verb in out
        status, own, _ = recsys(verb, "--help")
        assert status == 0 and meaning in " ".join(own.replace("\n", " ").split())


def test_the_version(recsys: Ask) -> None:
    assert recsys("--version") == (0, f"recsys {recsys_api.__version__}\n", "")


def test_the_shell_completes_verbs_and_overrides(
    recsys: Ask, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def proposed(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        return recsys()[1].split()

    monkeypatch.setenv("_RECSYS_COMPLETE", "complete_bash")
    assert proposed("recsys ev") == ["evaluate"]
    assert proposed(f"recsys run {config} trainer.check") == ["trainer.checkpoint_every_steps="]
    assert proposed(f"recsys train {config} retriever.wid") == ["retriever.width="]
    assert proposed("recsys run absent.toml trainer.epo") == ["trainer.epochs="]


def test_config_prints_what_loads_again(recsys: Ask, config: Path, tmp_path: Path) -> None:
    status, out, _ = recsys("config", config, "trainer.epochs=7", "retriever.dropout=0.5")
    assert status == 0
    (tmp_path / "again.toml").write_text(out)
    again = load_config(tmp_path / "again.toml")
    assert again == load_config(config, ["trainer.epochs=7", "retriever.dropout=0.5"])
    assert again.trainer.epochs == 7


def test_the_schema_of_configs_is_json(recsys: Ask) -> None:
    status, out, _ = recsys("config", "--schema")
    schema = json.loads(out)
    assert status == 0 and {"data", "retriever", "trainer"} <= set(schema["properties"])


def test_recommend_spreads_a_list_over_categories(
    recsys: Ask, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    words = ["--user", 2, "-k", 4, "--out", out]
    diverse = ["--diversity", 10, "--category", "category"]
    catalogue = pd.read_parquet(folder / "bundle" / "catalogue.parquet").set_index("item_id")
    assert recsys("recommend", folder, *words)[0] == 0
    plain = catalogue.loc[pd.read_parquet(out)["item"], "category"]
    assert recsys("recommend", folder, *words, *diverse)[0] == 0
    spread = catalogue.loc[pd.read_parquet(out)["item"], "category"]
    assert spread.nunique() > plain.nunique()
    assert_refused(
        recsys("recommend", folder, *words, "--diversity", 1), "diversity needs a category"
    )


def test_recommend_answers_with_items_that_pass(recsys: Ask, folder: Path, tmp_path: Path) -> None:
    out, allowed, forbidden = (tmp_path / name for name in ("out.csv", "a.txt", "f.parquet"))
    words = ["recommend", folder, "--user", 2, "-k", 4, "--out", out]
    catalogue = pd.read_parquet(folder / "bundle" / "catalogue.parquet").set_index("item_id")
    assert recsys(*words)[0] == 0
    first = pd.read_csv(out)["item"].tolist()
    category = catalogue.loc[first[0], "category"]
    assert recsys(*words, "--where", f"category != {json.dumps(category)}")[0] == 0
    others = pd.read_csv(out)
    assert len(others) == 4 and category not in set(catalogue.loc[others["item"], "category"])
    assert set(others["origin"]) == {"generator"}
    allowed.write_text("\ufeff" + "\n".join(map(str, [*first[:3], "", 10**9])) + "\n")
    pd.DataFrame({"item": first[:1], "why": "recalled"}).to_parquet(forbidden)
    assert recsys(*words, "--allow", allowed, "--forbid", forbidden)[0] == 0
    assert pd.read_csv(out)["item"].tolist() == first[1:3]
    status, _, said = recsys(*words, "--allow", allowed, "--where", "item_id == 1_000")
    assert_refused((status, "", said), "item_id == 1_000")
    status, _, said = recsys(*words, "--where", "category is None and category == 'x'")
    assert status == 0 and said == "recsys: no item is left to answer with\n"
    assert_refused(recsys(*words, "--where", "colour == 1"), "no column 'colour'", "category (")
    pd.DataFrame({"why": [1], "when": [2]}).to_parquet(forbidden)
    assert_refused(recsys(*words, "--forbid", forbidden), "needs a column 'item_id'", "why, when")
    assert_refused(recsys(*words, "--allow", tmp_path / "no.txt"), "no.txt cannot be read")


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_recommend_answers_the_others_and_then_names_bad_rows(
    recsys: Ask, folder: Path, tmp_path: Path, name: str
) -> None:
    asked, out = tmp_path / name, tmp_path / "out.parquet"
    seen = pd.read_feather(folder / "bundle" / "users.arrow").set_index("user_id")["history"]
    first, second = (list(map(str, seen[user][:3])) for user in (2, 5))
    frame = pd.DataFrame({"user_id": [7001, 7002, 7003], "history": [first, ["x"], second]})
    words = ["recommend", folder, "--requests", asked, "-k", 3, "--out", out]

    def write(rows: pd.DataFrame) -> None:
        if asked.suffix == ".parquet":
            rows.to_parquet(asked)
        else:
            rows.to_json(asked, orient="records", lines=True)

    write(frame)
    message, _, _ = recsys(*words)
    assert message == (
        f"recsys: {asked}: 1 of 3 rows cannot be read, and the others were answered: "
        "row 1 (history: 'x' is not an integer, as the ids of this log are)"
    )
    answers = pd.read_parquet(out)
    assert answers.groupby("user")["fallback"].all().tolist() == [False, True, False]
    assert answers["problem"].notna().tolist() == [False] * 3 + [True] * 3 + [False] * 3
    write(frame[::2])
    assert recsys(*words)[0] == 0
    columns = ["user", "rank", "item"]
    expected = answers.loc[answers["user"] != 7002, columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_parquet(out)[columns], expected)
    write(frame[1:2])
    assert_refused(recsys(*words), "'x' is not an integer")


def test_recommend_prints_a_table_or_writes_parquet(
    recsys: Ask, folder: Path, tmp_path: Path
) -> None:
    status, table, _ = recsys("recommend", folder, "--user", 2, "-u", 5, "-k", 3)
    assert status == 0 and "title" in table
    out = tmp_path / "out.parquet"
    status, printed, _ = recsys("recommend", folder, "--user", 2, "-u", 5, "-k", 3, "--out", out)
    found = pd.read_parquet(out)
    assert status == 0 and "title" not in printed
    assert found["user"].tolist() == [2] * 3 + [5] * 3
    assert all(str(item) in table for item in found["item"])
    seen = pd.read_feather(folder / "bundle" / "users.arrow").set_index("user_id")["history"]
    requests = tmp_path / "requests.parquet"
    pd.DataFrame({"user_id": [70_001], "history": [seen[2][:3]]}).to_parquet(requests)
    words = ["--requests", requests, "-k", 100, "--include-seen", "--out", out]
    assert recsys("recommend", folder / "bundle", *words)[0] == 0
    found = pd.read_parquet(out)
    assert set(found["user"]) == {70_001} and set(seen[2][:3]) <= set(found["item"])


def test_a_store_that_is_synced_answers_as_the_bundle_and_then_with_what_came_since(
    recsys: Ask, folder: Path, tmp_path: Path
) -> None:
    url, out = f"sqlite:///{tmp_path}/users.db", tmp_path / "out.parquet"
    ask = ["recommend", folder, "--user", 2, "-k", 60, "--out", out]
    assert recsys(*ask)[0] == 0
    own = pd.read_parquet(out)
    assert_refused(recsys(*ask, "--users", url), "is not there: make it by `recsys online sync")
    status, told, _ = recsys("online", "sync", folder, url, "--keep", 20)
    assert status == 0 and re.search(r"events read, \d[\d,]* of them new and kept; features", told)
    assert recsys(*ask, "--users", url)[0] == 0
    pd.testing.assert_frame_equal(pd.read_parquet(out), own)
    item = own["item"][0]
    event = {"user_id": [2], "item_id": [item], "time": ["2031-01-01"], "event_type": ["click"]}
    assert open_store(url).append(pa.table(event)) == 1
    assert recsys(*ask, "--users", url)[0] == 0
    assert item not in set(pd.read_parquet(out)["item"])  # has been seen by now
    status, again, _ = recsys("online", "sync", folder, url)
    assert status == 0 and ": 0 events read, 0 of them new" in again
    log = load_config(folder / "config.toml").store_folder  # its own, by the rules that are there
    assert "0 events read" in recsys("online", "sync", log, url)[1]
    status, shown, features = recsys("online", "show", url, "--user", 2, "--format", "csv")
    assert status == 0 and shown.splitlines()[-1] == f"2,history,2031-01-01 00:00:00,{item}"
    assert features.startswith("user_id: 2, country: ")
    assert "150 users; lists history: the newest 20 of each" in recsys("online", "show", url)[1]
    assert "read only" in recsys("online", "show", folder)[1]
    assert recsys("online", "forget", url, "-u", 3)[1] == (
        "1 of 1 users were there, and are forgotten\n"
    )
    assert_refused(recsys("online", "show", url, "--user", 3), "unknown user: 3")
    assert_refused(recsys("online", "show", url, "--user", 7_000_001), "unknown user: 7000001")
    assert_refused(recsys("online", "sync", tmp_path, url), "is no run, and no event log")
    assert_refused(recsys("online", "sync", folder, url, "--keep", 5), "--keep 5", "at least 20")


@pytest.mark.parametrize(("name", "separator"), [("out.csv", ","), ("out.tsv", "\t")])
def test_the_name_of_a_file_says_what_is_written(
    recsys: Ask, folder: Path, tmp_path: Path, name: str, separator: str
) -> None:
    words = ["recommend", folder, "--user", 2, "-k", 3, "--out"]
    assert recsys(*words, tmp_path / name)[0] == recsys(*words, tmp_path / "out.parquet")[0] == 0
    text = pd.read_csv(tmp_path / name, sep=separator)
    pd.testing.assert_frame_equal(
        text, pd.read_parquet(tmp_path / "out.parquet"), check_dtype=False
    )


@pytest.mark.parametrize("verb", ["recommend", "score"])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(
    recsys: Ask, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "a.csv").mkdir()
    for name, fragment in (
        ("out.xlsx", "let it end in .parquet, .csv, .tsv"),
        ("out", "let it end in .parquet, .csv, .tsv"),
        ("absent/out.csv", "there is no folder"),
        ("a.csv", "is a folder"),
    ):
        words = [verb, tmp_path / "no_bundle", "--requests", tmp_path / "no.parquet"]
        assert_refused(recsys(*words, "--out", tmp_path / name), name, fragment)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("verb", ["run", "ingest", "train", "plan", "tune"])
@pytest.mark.parametrize("key", ["output", "store"])
def test_folders_that_cannot_be_written_are_refused(
    recsys: Ask, config: Path, tmp_path: Path, verb: str, key: str
) -> None:
    if (verb, key) == ("train", "store"):
        return  # it reads that one
    (tmp_path / "file").write_text("")
    for place in ("/proc/x", tmp_path / "file" / "x"):
        elsewhere = "name=elsewhere" if key == "output" else f"output={tmp_path}"
        answer = recsys(verb, config, elsewhere, f"{key}={place}")
        assert_refused(answer, f"{place}", "cannot be written")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The private halves of two keys, and their public ones."""
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder, paths = tmp_path_factory.mktemp("keys"), {}
    for name in ("own", "other"):
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
        public = key.public_key().public_bytes(
            pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo
        )
        for half, content in ((name, private), (f"{name}_public", public)):
            paths[half] = folder / f"{half}.pem"
            paths[half].write_bytes(content)
    return paths


def test_a_bundle_is_signed_and_asked_by_its_signature(
    recsys: Ask, folder: Path, tmp_path: Path, keys: dict[str, Path]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(folder / "bundle", bundle)
    ask = ["recommend", bundle, "--user", "1", "-k", "1"]
    own = [*ask, "--require-signature", keys["own_public"]]
    assert_refused(recsys(*own), "is not signed: `recsys bundle sign")
    status, told, _ = recsys("bundle", "sign", bundle, "--key", keys["own"])
    assert status == 0 and told == f"signed: {bundle / 'manifest.sig'}\n"
    assert recsys(*own)[0] == recsys(*ask)[0] == 0
    other = [*ask, "--require-signature", keys["other_public"]]
    assert_refused(recsys(*other), "was not signed by the holder of", "other_public.pem")
    assert_refused(recsys(*ask, "--require-signature", keys["own"]), "as a public key")
    wrong = recsys("bundle", "sign", bundle, "--key", keys["own_public"])
    assert_refused(wrong, "cannot be read as a key", "openssl genpkey")
    nothing = recsys("bundle", "sign", tmp_path / "x", "--key", keys["own"])
    assert_refused(nothing, str(tmp_path / "x"))


def test_versions_are_listed_verified_published_and_rolled_back(
    recsys: Ask, folder: Path, tmp_path: Path
) -> None:
    """A bundle is a link to the version in service, which `current` leads to, too."""
    assert os.readlink(folder / "bundle") == "bundles/current"
    (row,) = csv.DictReader(recsys("bundle", "list", folder)[1].splitlines())
    assert row["version"] == os.readlink(folder / "bundles" / "current")
    assert row["current"] == "True" and row["version"].endswith(row["digest"])
    status, told, _ = recsys("bundle", "verify", folder)
    assert status == 0
    assert [line.partition(":")[0] for line in told.splitlines()] == ["files", "generator"]
    assert told.count(": well: ") == 2

    served = tmp_path / "served"
    assert recsys("bundle", "publish", folder, served)[0] == 0
    changed = tmp_path / "changed"
    shutil.copytree(folder / "bundle", changed)
    tree = json.loads((changed / "manifest.json").read_text()) | {"created": "later"}
    (changed / "manifest.json").write_text(json.dumps(tree))
    assert recsys("bundle", "publish", changed, served)[0] == 0
    assert recsys("recommend", served, "--user", 7, "-k", 3)[0] == 0
    status, told, _ = recsys("bundle", "rollback", served)
    assert status == 0 and f"-> {os.readlink(served / 'current')} (before: 2" in told
    assert_refused(recsys("bundle", "rollback", served), "has no version before")
    assert_refused(recsys("bundle", "list", changed), "no published bundles", "bundle publish")
    delta = tmp_path / "delta.zip"
    assert recsys("bundle", "delta", folder, changed, "--out", delta)[0] == 0
    status, told, _ = recsys("bundle", "apply", delta, served)
    assert status == 0 and f"-> {os.readlink(served / 'current')}" in told
    assert_refused(recsys("bundle", "apply", delta, served), "was applied already")
    assert_refused(recsys("bundle", "apply", folder, served), "delta.json is missing")
    (changed / "users.arrow").write_bytes(b"")
    status, told, errors = recsys("bundle", "verify", changed, "--json")
    answer = json.loads(told)
    assert status == 1 and not answer["well"] and "Traceback" not in errors
    assert "users.arrow was altered" in answer["checks"]["files"]["told"]
    assert_refused(recsys("bundle", "publish", changed, served), "users.arrow was altered")
    assert len(list(served.iterdir())) == 4


def test_a_folder_from_elsewhere_is_written_and_nothing_else(
    recsys: Ask, config: Path, folder: Path, tmp_path: Path
) -> None:
    """Whatever places its config names."""
    here, theirs = tmp_path / "here", tmp_path / "theirs"
    shutil.copytree(folder, here)
    (store,) = (folder.parent / "store").iterdir()
    tree = tomllib.loads((here / "config.toml").read_text()) | {"output": str(theirs)}

    def asked(*words: str, **more: Any) -> tuple[Any, str, str]:
        (here / "config.toml").write_text(tomli_w.dumps(tree | more))
        return recsys("evaluate", here, *words)

    (here / "metrics.json").unlink()
    at = f"store={store}"
    before = {path.name for path in tmp_path.iterdir()}
    assert_refused(
        asked(store=str(theirs / "log")), "made elsewhere", "store = ", "if that is meant"
    )
    tracked = {"tracking": {"enabled": True, "uri": f"sqlite:///{theirs}/mlflow.db"}}
    assert_refused(asked(at, **tracked), "made elsewhere", "tracking.uri = sqlite")
    assert not (here / "metrics.json").exists()
    assert asked(at)[0] == 0
    assert (here / "metrics.json").exists() and not theirs.exists()
    assert {path.name for path in tmp_path.iterdir()} == before


def test_doctor_reports_by_its_status(recsys: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    for status in (0, 1):
        monkeypatch.setattr("recsys.doctor.doctor", lambda status=status: status)
        assert recsys("doctor")[0] == status
