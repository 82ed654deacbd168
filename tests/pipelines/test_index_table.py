"""What an export prints of a promise."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from pipelines.index_table import index_table, most_tried
from recsys.serving.index.options import IVFConfig, PromiseConfig
from recsys.serving.index.record import MeasuredIndex, PromiseRecord


def figures(config: IVFConfig, recall: float, items: int = 100) -> MeasuredIndex:
    return MeasuredIndex(
        config=config,
        items=items,
        recall=recall,
        queries_per_second=12345.6,
        milliseconds=0.125,
        bytes_per_item=74.1,
    )


def test_the_table_shows_what_was_tried_last_and_what_was_chosen() -> None:
    tried = (
        figures(IVFConfig(probes=1), 0.5),
        figures(IVFConfig(probes=2), 0.99),
        figures(IVFConfig(probes=1, codes="sq8"), 0.96),
    )
    assert most_tried(tried) == [tried[1], tried[2]]
    record = PromiseRecord(
        promise=PromiseConfig(recall=0.95, memory_mb=200),
        chosen=figures(IVFConfig(probes=2, codes="sq8"), 0.9712, items=1_000_000),
        candidates=tried,
        kept_recall=0.97,
        machine="a processor",
        threads=1,
    )
    console = Console(width=120, record=True, file=StringIO())
    console.print(index_table("generator", record))
    text = console.export_text()
    lines = {line.split(" probes")[0].strip(): line for line in text.splitlines()}
    assert "ivf of flat, 1" not in lines
    chosen = lines["ivf of sq8, 2"].split()
    assert chosen[-6:] == ["1,000,000", "0.9712", "12,346", "0.12", "74.1", "74.1"]
    assert "recall@10 of 0.95 within 200 MB" in text
    assert "chosen: ivf of sq8, 2 probes; on 1 thread of a processor" in text
