"""What is to be run on a GPU, tried without one: tiny sizes here, and steps that go wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
import torch

from benchmarks.gpu import __main__ as program
from benchmarks.gpu import whole
from benchmarks.gpu.plan import steps
from benchmarks.gpu.record import LEFT_OUT, keep
from benchmarks.gpu.step import FAILED, Settings, Step
from benchmarks.gpu.training import SUBJECTS
from benchmarks.gpu.whole import ended
from benchmarks.gpu.workers import Apart
from recsys.config import RunConfig
from recsys.rankers import RANKERS
from recsys.retrievers import RETRIEVERS, retriever_class

STEPS = "gpu_steps"
ONE_OF_A_KIND = (  # fp32 is what the conformance of models trains in
    "device",
    "train * bf16 replicated",
    "train * bf16 sharded",
    "suite",
    "quickstart",
    "tables",
    "epoch sasrec bf16",
    "utilisation hstu 128",
    "compiled sasrec",
    "compiled dcn",
    "doctor",
)


def test_every_step_runs_with_tiny_sizes_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the main job, of which the tests of the pipelines make runs enough."""
    asked: list[RunConfig] = []

    def run(config: RunConfig) -> Any:
        asked.append(config)
        return Mock(metrics=pd.DataFrame({"NDCG@10": [0.1]}))

    monkeypatch.setattr(whole, "run", run)
    out = tmp_path / "gpu.json"
    program.main(["--dry-run", "--out", str(out), "--only", *ONE_OF_A_KIND])
    record = json.loads(out.read_text())
    failed = {name: outcome for name, outcome in record["steps"].items() if FAILED in outcome}
    assert failed == {}
    functions = {step.function for step in steps("cpu")}
    assert {step.function for step in steps("cpu") if step.name in record["steps"]} == functions
    assert record["environment"]["versions"]["torch"]
    assert [(config.trainer.device, config.name) for config in asked] == [
        ("cpu", "synthetic_quickstart")
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["--only", "device"])
    assert ended.value.code == 2 and "--dry-run needs none" in capsys.readouterr().err


def test_every_trained_model_is_tried() -> None:
    trained = {name for name in RETRIEVERS if retriever_class(name).learns_by_gradient}
    tried = {(parts.get("retriever") or parts["ranker"])["name"] for parts in SUBJECTS.values()}
    assert tried == trained | set(RANKERS)
    names = [step.name for step in steps("cuda")]
    assert len(set(names)) == len(names)


def test_one_step_that_fails_dies_or_hangs_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each is told apart; steps that go well share a process."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    order = ["fine", "fine", "wrong", "dead", "slow", "fine"]
    planned = [
        Step(f"{number} {name}", f"{STEPS}:{name}", seconds=1 if name == "slow" else 60)
        for number, name in enumerate(order)
    ]
    settings = Settings("cpu", True, tmp_path)
    doer = Apart(settings)
    try:
        record = keep(tmp_path / "gpu.json", planned, doer, settings, seconds=120)
    finally:
        doer.close()
    outcomes = list(record["steps"].values())
    assert outcomes[0]["process"] == outcomes[1]["process"] != outcomes[5]["process"]
    assert outcomes[2][FAILED] == "ValueError: wrong"
    assert outcomes[3][FAILED] == "the process ended: -6"
    assert outcomes[4][FAILED] == "no answer within 1 s"
    assert json.loads((tmp_path / "gpu.json").read_text()) == record


def test_what_there_is_no_time_for_is_said(tmp_path: Path) -> None:
    settings = Settings("cpu", True, tmp_path)
    record = keep(tmp_path / "gpu.json", [Step("late", f"{STEPS}:fine")], None, settings, 1)  # type: ignore[arg-type]
    assert record["steps"] == {"late": {LEFT_OUT: "no time"}}


def test_tests_are_told_one_by_one(tmp_path: Path) -> None:
    report = tmp_path / "suite.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="a.b" name="good"/>'
        '<testcase classname="a.b" name="bad"><failure message="no"/></testcase>'
        '<testcase classname="a.b" name="left"><skipped message="no GPU"/></testcase>'
        "</testsuite></testsuites>"
    )
    outcome = ended(report)
    assert (outcome["passed"], outcome["of"], outcome[FAILED]) == (1, 3, "1 tests")
    assert outcome["tests"] == {
        "b::good": "passed",
        "b::bad": "failure: no",
        "b::left": "skipped: no GPU",
    }
