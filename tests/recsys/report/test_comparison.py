"""Runs side by side: what is paired, what is tested, and what must not be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.errors import DataError
from recsys.evaluation.predictions import (
    FIGURES,
    Predictions,
    summarise_lists,
    summarise_predictions,
)
from recsys.evaluation.shown_lists import ShownLists
from recsys.report.comparison import Comparison, compare
from recsys.report.report import write_comparison
from recsys.statistics.bootstrap import mean_intervals, ratio_intervals
from recsys.statistics.significance import bootstrap_test, holm, randomisation_test

RANDOM = np.random.default_rng(0)
USERS = 120
VALUE = RANDOM.gamma(1.0, 20.0, USERS)
BASE = RANDOM.random(USERS)
Values = dict[str, np.ndarray]
Write = Callable[..., Path]


def figures(level: float) -> Values:
    """A value per user of each figure, better with the level."""
    near = np.clip(BASE + level + 0.1 * RANDOM.standard_normal(USERS), 0, 1)
    return {
        **{f"{name}@{k}": near * k / 20 for name in ("Recall", "NDCG") for k in (10, 20)},
        "GMV@10": VALUE * near / 2,
    }


FIRST, SECOND, THIRD = figures(0.0), figures(0.05), figures(0.0)


def run_folder(
    folder: Path, retrievers: dict[str, Values], users: dict[str, Any] | None = None, **results: Any
) -> Path:
    """What `recsys evaluate` leaves behind."""
    (folder / "per_user").mkdir(parents=True)
    (folder / "config.toml").write_text('name = "x"\n')
    found = {}
    for name, values in retrievers.items():
        ids = (users or {}).get(name, np.arange(USERS) + 1000)
        frame = pd.DataFrame({"user": ids, "value": VALUE[: len(ids)], **values})
        frame.to_parquet(folder / "per_user" / f"{name}.parquet")
        low, high = mean_intervals(np.stack(list(values.values()), axis=1))
        shown = {k: v for k, v in values.items() if "|" not in k}
        metrics = {key: float(np.mean(v)) for key, v in shown.items()}
        ci95 = {key: [low[n], high[n]] for n, key in enumerate(shown)}
        coverage = {"Coverage@10": 0.5 + len(found) / 10, "Gini@20": None}
        capture = {"GMVCapture@10": values["GMV@10"].sum() / VALUE[: len(ids)].sum()}
        found[name] = {
            "metrics": metrics | coverage | capture,
            "ci95": ci95 | {"Coverage@10": [0.4, 0.7], "GMVCapture@10": [0.2, 0.3]},
            "users": len(ids),
        }
    known = {
        "protocol": "leave_one_out",
        "protocol_fingerprint": "aaaa",
        "protocol_parts": {
            "data": "d1",
            "split.protocol": "leave_one_out",
            "split.seen": "exclude",
        },
        "candidates": 50,
        "retrievers": found,
    }
    (folder / "metrics.json").write_text(json.dumps(known | results))
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a run's folder, by name."""

    def write(name: str, retrievers: dict[str, Values], **more: Any) -> Path:
        return run_folder(tmp_path / name, retrievers, **more)

    return write


@pytest.fixture
def runs(write: Write) -> list[str]:
    one = write("one", {"sasrec": FIRST, "ease": SECOND})
    two = write("two", {"two_tower": THIRD})
    return [str(one), f"{one}:ease", str(two)]


def row(comparison: Comparison, run: str, metric: str) -> pd.Series:
    frame = comparison.frame
    return frame[(frame["run"] == run) & (frame["metric"] == metric)].squeeze()


def column(values: np.ndarray) -> np.ndarray:
    return values[:, None]


def test_differences_are_paired_by_user_and_tested_against_the_first(runs: list[str]) -> None:
    found = compare(runs)
    assert (found.protocol, found.fingerprint, found.candidates) == ("leave_one_out", "aaaa", 50)
    assert found.users == USERS and found.notes == ()
    assert [(run.label, run.model) for run in found.runs] == [
        ("one", "sasrec"), ("one:ease", "ease"), ("two", "two_tower"),
    ]  # fmt: skip
    for run, values in (("one:ease", SECOND), ("two", THIRD)):
        for name in ("NDCG@10", "GMV@10"):
            got = row(found, run, name)
            apart = column(values[name] - FIRST[name])
            low, high = mean_intervals(apart)
            assert got["value"] == pytest.approx(values[name].mean())
            assert got["difference"] == pytest.approx(apart.mean())
            assert [got["difference_low"], got["difference_high"]] == pytest.approx([*low, *high])
            p = randomisation_test(column(values[name]), column(FIRST[name]))
            assert got["p"] == pytest.approx(p[0])
    assert row(found, "one:ease", "NDCG@10")["p"] < 0.001 < row(found, "two", "NDCG@10")["p"]
    first = found.frame[found.frame["run"] == "one"]
    assert first[["difference", "difference_low", "p", "p_holm"]].isna().all(axis=None)


def test_holm_counts_every_comparison_made(runs: list[str]) -> None:
    frame = compare(runs).frame
    assert frame["p"].notna().sum() == 8  # four figures per user, two runs against the first
    np.testing.assert_allclose(frame["p_holm"], holm(frame["p"].to_numpy()))
    assert (frame["p_holm"].dropna() >= frame["p"].dropna()).all()


def test_figures_that_are_no_sums_over_users_have_no_test(runs: list[str]) -> None:
    found = compare(runs)
    got = row(found, "one:ease", "Coverage@10")
    assert [got["value"], got["low"], got["high"]] == [0.6, 0.4, 0.7]
    assert got["difference"] == pytest.approx(0.1)
    assert got[["difference_low", "difference_high", "p", "p_holm"]].isna().all()


def test_gmv_capture_is_a_ratio_of_sums_and_tested_as_its_numerator(runs: list[str]) -> None:
    found = compare(runs)
    got = row(found, "one:ease", "GMVCapture@10")
    apart = SECOND["GMV@10"] - FIRST["GMV@10"]
    low, high = ratio_intervals(column(apart), column(VALUE))
    assert got["difference"] == pytest.approx(apart.sum() / VALUE.sum())
    assert [got["difference_low"], got["difference_high"]] == pytest.approx([*low, *high])
    assert [got["low"], got["high"]] == [0.2, 0.3]  # as the run has it
    assert got["p"] == row(found, "one:ease", "GMV@10")["p"]


def test_stratified_recall_is_a_ratio_over_the_users_that_both_have(write: Write) -> None:
    """Each run's weights are 1 on average over its own users, of whom one has fewer."""
    rarity, some = RANDOM.gamma(1.0, 1.0, USERS), USERS // 2
    shares = [np.clip(BASE + level, 0, 1) for level in (0.0, 0.1)]

    def values(share: np.ndarray, users: int) -> Values:
        weight = rarity[:users] / rarity[:users].mean()
        found = {"rarity": weight, "StratifiedRecall@10": share[:users] * weight}
        return {name: column[:users] for name, column in FIRST.items()} | found

    one = write("one", {"sasrec": values(shares[0], USERS)})
    ids = np.arange(some) + 1000
    two = write("two", {"sasrec": values(shares[1], some)}, users={"sasrec": ids})
    got = row(compare([one, two], ["StratifiedRecall@10"]), "two", "StratifiedRecall@10")
    weight, apart = rarity[:some], (shares[1] - shares[0])[:some]
    low, high = ratio_intervals(column(apart * weight), column(weight))
    assert got["difference"] == pytest.approx((apart * weight).sum() / weight.sum())
    assert [got["difference_low"], got["difference_high"]] == pytest.approx([*low, *high])
    assert got["value"] == pytest.approx((shares[1][:some] * weight).sum() / weight.sum())


def test_metrics_by_name_at_one_cut_off_or_all(runs: list[str]) -> None:
    def names(*asked: str) -> list[str]:
        return list(dict.fromkeys(compare(runs[:2], asked).frame["metric"]))

    assert names() == ["Recall@10", "NDCG@10", "Coverage@10", "GMV@10", "GMVCapture@10"]
    assert names("NDCG", "Recall@20", "NDCG@20") == ["NDCG@10", "NDCG@20", "Recall@20"]
    for unknown in ("MAP", "NDCG@7", "Gini@20"):  # the last is there, but without a value
        with pytest.raises(DataError, match=f"{unknown}.*NDCG.*Coverage.* at 10, 20"):
            compare(runs, [unknown])


def test_the_largest_cut_off_is_shown_where_10_was_not_measured(write: Write) -> None:
    def some(values: Values) -> Values:
        return {"NDCG@3": values["NDCG@10"], "NDCG@5": values["NDCG@20"], "GMV@10": VALUE}

    one, two = write("one", {"a": some(FIRST)}), write("two", {"a": some(SECOND)})
    for run in (one, two):
        results = json.loads((run / "metrics.json").read_text())
        kept = {k: v for k, v in results["retrievers"]["a"]["metrics"].items() if "@10" not in k}
        results["retrievers"]["a"]["metrics"] = kept
        (run / "metrics.json").write_text(json.dumps(results))
    assert set(compare([one, two]).frame["metric"]) == {"NDCG@5"}
    results["retrievers"]["a"]["metrics"] = {"NDCG@7": 0.1}
    (two / "metrics.json").write_text(json.dumps(results))
    with pytest.raises(DataError, match="no metric in common: evaluate them at the same cut-offs"):
        compare([one, two])


def test_slices_of_items_pair_the_users_who_have_them_in_both(write: Write) -> None:
    name = "Recall@10|popularity=head"
    a, b = FIRST["Recall@10"].copy(), SECOND["Recall@10"].copy()
    a[:40], b[:40] = np.nan, np.nan
    runs = [write("one", {"x": FIRST | {name: a}}), write("two", {"x": SECOND | {name: b}})]
    got = row(compare(runs, [name]), "two", name)
    apart = column((b - a)[40:])
    assert got["value"] == pytest.approx(np.nanmean(b))
    assert got["low"] < got["value"] < got["high"]
    assert got["difference"] == pytest.approx(apart.mean())
    assert got["p"] == pytest.approx(randomisation_test(column(b), column(a))[0])


def test_the_bootstrap_test_may_be_asked_for(runs: list[str]) -> None:
    got = row(compare(runs, ["NDCG@10"], test="bootstrap"), "two", "NDCG@10")
    assert got["p"] == bootstrap_test(column(THIRD["NDCG@10"]), column(FIRST["NDCG@10"]))[0]


def test_equal_runs_differ_in_nothing(write: Write) -> None:
    runs = [write(name, {"x": FIRST}) for name in ("one", "two")]
    second = compare(runs, ["NDCG", "GMVCapture"]).frame.query("run == 'two'")
    assert (second[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert (second[["p", "p_holm"]] == 1).all(axis=None)


def test_users_are_paired_by_id_whatever_their_order(write: Write, runs: list[str]) -> None:
    turned = {name: values[::-1] for name, values in SECOND.items()}
    ids = {"ease": np.arange(USERS)[::-1] + 1000}
    again = write("again", {"ease": turned}, users=ids)
    names = ["NDCG@10", "Recall@20"]
    expected, got = compare(runs[:2], names).frame, compare([runs[0], again], names).frame
    own = ["run", "low", "high"]  # read from the runs
    pd.testing.assert_frame_equal(got.drop(columns=own), expected.drop(columns=own))


def test_runs_with_other_users_are_compared_over_the_common_ones_and_it_is_said(
    write: Write,
) -> None:
    few = {name: values[:100] for name, values in SECOND.items()}
    one = write("one", {"x": FIRST})
    two = write("two", {"x": few}, users={"x": np.arange(100) + 1000})
    found = compare([one, two])
    assert found.users == 100
    assert found.notes == (
        "figures are over the 100 users that all runs have (of one 120, two 100)",
        "but Coverage@10 over each run's own users: no difference is shown",
    )
    first, second = (row(found, run, "NDCG@10") for run in ("one", "two"))
    assert first["value"] == pytest.approx(FIRST["NDCG@10"][:100].mean())
    low, high = mean_intervals(column(FIRST["NDCG@10"][:100]))
    assert [first["low"], first["high"]] == pytest.approx([*low, *high])
    assert second["difference"] == pytest.approx(second["value"] - first["value"])
    capture = row(found, "one", "GMVCapture@10")["value"]
    assert capture == pytest.approx(FIRST["GMV@10"][:100].sum() / VALUE[:100].sum())
    assert np.isnan(row(found, "two", "Coverage@10")["difference"])
    away = write("away", {"x": few}, users={"x": np.arange(100)})
    with pytest.raises(DataError, match="no user in common"):
        compare([one, away])


@pytest.mark.parametrize(
    ("other", "messages"),
    [
        (
            {
                "protocol_fingerprint": "bbbb",
                "protocol_parts": {
                    "data": "d1", "split.protocol": "leave_one_out", "split.seen": "include",
                },
            },
            ["(aaaa)", "(bbbb)", 'split.seen is "exclude" in one but "include" in two'],
        ),
        (
            {
                "protocol": "random-5fold-0",
                "protocol_fingerprint": "bbbb",
                "protocol_parts": {"data": "d2", "split.protocol": "random", "split.folds": 5},
            },
            [
                "one was measured by leave_one_out (aaaa), two by random-5fold-0 (bbbb)",
                'data is "d1" in one but "d2" in two',
                'split.protocol is "leave_one_out" in one but "random" in two',
            ],
        ),
        ({"candidates": 49}, ["candidates is 50 in one but 49 in two"]),
        ({"protocol_fingerprint": "bbbb"}, ["(bbbb)", "neither says what differs"]),
    ],
    ids=["setting", "kind and data", "candidates", "unknown"],
)  # fmt: skip
def test_other_protocols_are_refused_and_the_difference_named(
    write: Write, other: dict[str, Any], messages: list[str]
) -> None:
    runs = [write("one", {"x": FIRST}), write("two", {"x": SECOND}, **other)]
    with pytest.raises(DataError) as refused:
        compare(runs)
    for message in messages:
        assert message in str(refused.value)
    assert "\n" not in str(refused.value) and "split.folds" not in str(refused.value)


def test_runs_that_are_not_there_are_named(write: Write, runs: list[str], tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for names, message in [
        (runs[:1], "two runs or more"),
        ([runs[0], runs[0]], "one is named twice"),
        ([runs[0], f"{runs[0]}:sasrec"], "one:sasrec is named twice"),
        ([runs[0], f"{runs[0]}:eaze"], "no retriever 'eaze': it has sasrec, ease"),
        ([runs[0], tmp_path / "nowhere"], "nowhere is not a folder"),
        ([runs[0], bare], "bare is not a run"),
    ]:
        with pytest.raises(DataError, match=message):
            compare(names)
    (bare / "config.toml").write_text("")
    with pytest.raises(DataError, match="was not evaluated: run `recsys evaluate"):
        compare([runs[0], bare])
    broken = write("broken", {"x": FIRST})
    frame = pd.read_parquet(broken / "per_user" / "x.parquet")
    frame.iloc[:50].to_parquet(broken / "per_user" / "x.parquet")
    with pytest.raises(DataError, match=r"has 50 users and metrics.json 120: run `recsys evalu"):
        compare([runs[0], broken])
    (broken / "per_user" / "x.parquet").unlink()
    with pytest.raises(DataError, match=r"x\.parquet is absent"):
        compare([runs[0], broken])


def test_folders_of_equal_names_are_told_apart(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / place / "ml", {"x": FIRST}) for place in ("here", "there")]
    assert [run.label for run in compare(runs).runs] == [str(run) for run in runs]


def test_the_whole_is_json_without_nan(runs: list[str]) -> None:
    found = compare(runs)
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["runs"][1] == {"run": "one:ease", "folder": runs[0], "retriever": "ease"}
    assert again["protocol_fingerprint"] == "aaaa" and again["test"] == "randomisation"
    assert len(again["figures"]) == len(found.frame)
    for got, (_, expected) in zip(again["figures"], found.frame.iterrows(), strict=True):
        for name, value in expected.items():
            assert got[name] is None if pd.isna(value) else got[name] == value


def predictions_of(users: np.ndarray, skill: float, seed: int) -> Predictions:
    """Rows of 0 and 1, and logits that lean to the label by the skill."""
    random = np.random.default_rng(1)  # whoever predicts, the labels are the same
    labels = (random.random(len(users)) < 0.4).astype(np.float32)
    noise = np.random.default_rng(seed).standard_normal(len(users))
    return Predictions(users, np.arange(len(users)), labels, skill * (labels - 0.5) + noise)


def ranker_folder(folder: Path, tasks: dict[str, Predictions]) -> str:
    """What `recsys evaluate` leaves of a ranker."""
    (folder / "per_row").mkdir(parents=True)
    (folder / "config.toml").write_text("[evaluation]\nreplicates = 200\n")
    found = {}
    for name, of in tasks.items():
        shuffled = np.random.default_rng(len(str(folder))).permutation(len(of.users))
        table = of.table(pa.array(of.users), pa.array(of.items))
        pq.write_table(table.take(shuffled), folder / "per_row" / f"{name}.parquet")
        found[name] = summarise_predictions(of, replicates=100)
        if of.lists is not None and of.shown is not None:
            (folder / "per_list").mkdir()
            orders = {name: of.lists, "as_displayed": of.shown.judge(-of.shown.places)}
            for order, lists in orders.items():
                table = lists.table(pa.array(lists.lists), pa.array(lists.users))
                pq.write_table(table, folder / "per_list" / f"{order}.parquet")
            found["as_displayed"] = summarise_lists(orders["as_displayed"], replicates=100)
    known = {"protocol": "random", "protocol_fingerprint": "cccc", "protocol_parts": {}, "seed": 0}
    (folder / "metrics.json").write_text(json.dumps(known | {"rankers": found}))
    return str(folder)


def test_rankers_are_paired_by_resampled_users(tmp_path: Path) -> None:
    users = np.repeat(np.arange(40), 15)
    first, better = predictions_of(users, 0.5, seed=2), predictions_of(users, 2.0, seed=3)
    other_task = Predictions(users[:99], users[:99], first.labels[:99], first.logits[:99])
    one = ranker_folder(tmp_path / "one", {"pooling": first})
    two = ranker_folder(tmp_path / "two", {"din": better, "din_buy": other_task})
    found = compare([one, two])
    assert found.users == 40 and found.candidates is None
    assert list(found.frame["metric"].unique()) == list(FIGURES)
    draws = better.replicates(200) - first.replicates(200)
    for place, name in enumerate(FIGURES):
        got = row(found, "two", name)
        assert got["value"] == pytest.approx(better.metrics[name])
        assert got["difference"] == pytest.approx(better.metrics[name] - first.metrics[name])
        if name != "ECE":
            ends = np.percentile(draws[:, place], [2.5, 97.5])
            assert [got["difference_low"], got["difference_high"]] == pytest.approx(list(ends))
    ece = row(found, "two", "ECE")
    assert ece["difference_low"] < ece["difference"] < ece["difference_high"]
    # only what is a sum over users can be tested by turning users' values round; of the others the
    # draws are held against the difference, and of ECE nothing
    auc, gauc, loss = (row(found, "two", name) for name in ("AUC", "GAUC", "LogLoss"))
    assert auc["difference_low"] > 0 and auc["p"] == 1 / 201 and np.isnan(ece["p"])
    shift = row(found, "two", "Calibration")["difference"]
    farther = (np.abs(draws[:, FIGURES.index("Calibration")] - shift) >= abs(shift)).sum()
    assert row(found, "two", "Calibration")["p"] == pytest.approx((1 + farther) / 201) != 1 / 201
    assert gauc["p"] < 0.001 and loss["p"] < 0.001
    losses = [log_loss_of_users(of) for of in (better, first)]
    assert loss["p"] == pytest.approx(randomisation_test(*(of[:, None] for of in losses))[0])
    # the same predictions differ in nothing, whatever order they were written in
    again = compare([one, ranker_folder(tmp_path / "again", {"pooling": first})]).frame
    moved = again[again["run"] == "again"][["difference", "difference_low", "difference_high"]]
    np.testing.assert_allclose(moved.to_numpy(dtype=float), 0, atol=1e-12)
    assert set(again[(again["run"] == "again") & (again["metric"] != "ECE")]["p"]) == {1.0}
    assert found.to_dict()["runs"][1]["ranker"] == "din"
    page = write_comparison(found, tmp_path / "compared.html").read_text()
    assert "GAUC" in page and "Candidates" not in page
    for runs, message in [
        ([one, f"{two}:din_buy"], "measured on different rows: name the same task"),
        ([one, f"{two}:dim"], "no ranker 'dim': it has din, din_buy"),
        ([one, run_folder(tmp_path / "lists", {"x": FIRST})], "a ranker and lists a retriever"),
    ]:
        with pytest.raises(DataError, match=message):
            compare(runs)
    with pytest.raises(DataError, match=r"no metric 'NDCG' in all of these runs: they have AUC"):
        compare([one, two], ["NDCG"])


def log_loss_of_users(of: Predictions) -> np.ndarray:
    p = of.probabilities
    rows = -np.log(np.where(of.labels > 0, p, 1 - p))
    return np.array([rows[of.users == user].mean() for user in range(40)])


def test_orders_of_lists_are_paired_by_list(tmp_path: Path) -> None:
    users = np.repeat(np.arange(40), 15)
    rows = [predictions_of(users, skill, seed=2) for skill in (0.2, 4.0)]
    places = np.tile(np.arange(5) + 1, 120)
    shown = ShownLists(np.repeat(np.arange(120) + 1, 5), users, places, 0 * users, rows[0].labels)
    one, two = (
        ranker_folder(tmp_path / name, {"din": replace(of, shown=shown)})
        for name, of in zip(("one", "two"), rows, strict=True)
    )
    found = compare([one, two, f"{two}:as_displayed"], ["MRR", "ListAUC"])
    judged = [shown.judge(of.logits).values for of in rows]
    for place, name in enumerate(("MRR", "ListAUC")):
        got, apart = row(found, "two", name), judged[1][:, place] - judged[0][:, place]
        assert got["difference"] == pytest.approx(np.nanmean(apart))
        ends = mean_intervals(apart[:, None], replicates=200)
        assert [got["difference_low"], got["difference_high"]] == pytest.approx(np.ravel(ends))
        assert got["p"] < 0.001 < row(found, "two:as_displayed", name)["p"]
    # an order that predicts nothing has figures of lists alone
    assert set(compare([one, f"{two}:as_displayed"]).frame["metric"]) == {"MRR", "ListAUC", "NDCG"}
    assert "AUC" in set(compare([one, two]).frame["metric"])
