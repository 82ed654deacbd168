"""What a tracker is told of figures, and which files come with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch

from recsys.config import parse_config
from recsys.distributed import Group
from recsys.runs.figures import write_figures
from recsys.runs.folder import RunFolder
from recsys.runs.work import Work


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.files: list[Path] = []
        self.page = ""

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Each under its own name."""
        assert not self.metrics.keys() & metrics.keys()
        self.metrics |= metrics

    def log_files(self, *paths: Path) -> None:
        """In their order."""
        self.files += paths

    def describe(self, text: str) -> None:
        """The last one."""
        self.page = text


def test_figures_of_lists_are_tracked_by_protocol_and_order(tmp_path: Path) -> None:
    """All of the ranker's, of each other order the one that decides, and a file a list for all."""
    split = {"protocol": "last_lists"}
    tree: dict[str, Any] = {"name": "r", "data": {"source": "synthetic", "lists": True}}
    tree |= {"output": str(tmp_path), "split": split, "ranker": {"name": "din"}}
    config = parse_config(tree)
    files = RunFolder(config.folder)
    for folder in (files.predictions, files.list_figures):
        folder.mkdir(parents=True)
    of_lists = {"MRR": 0.5, "ListAUC": 0.75, "NDCG": 0.625}
    of_rows = {"AUC": 0.8, "GAUC": 0.7, "LogLoss": 0.4}
    rankers = {
        "din": {"metrics": of_lists | of_rows, "seconds": {}},
        "din_as_shown": {"metrics": {**of_lists, "MRR": 0.6}, "seconds": {}},
        "as_displayed": {"metrics": {**of_lists, "MRR": 0.25}, "seconds": {}},
    }
    files.report.write_text("of other figures")
    told = Told()
    work = Work(config, Group(0, 1, torch.device("cpu")), files)
    write_figures(work, {"protocol": "last_lists-shown", "rankers": rankers}, cast(Any, told))
    own = {name for name in told.metrics if "/" not in name.removeprefix("test/last_lists-shown/")}
    assert {name.rpartition("/")[2] for name in own} >= {"MRR", "ListAUC", "NDCG", "AUC"}
    assert told.metrics["test/last_lists-shown/MRR"] == 0.5
    assert {name: value for name, value in told.metrics.items() if name not in own} == {
        "test/last_lists-shown/din_as_shown/MRR": 0.6,
        "test/last_lists-shown/as_displayed/MRR": 0.25,
    }
    assert told.files == [files.metrics, files.predictions, files.list_figures]
    assert not files.report.exists()  # a kill from here on leaves no report of other figures
    assert "| as_displayed | 0.2500 |" in told.page and "| din | 0.5000 |" in told.page
