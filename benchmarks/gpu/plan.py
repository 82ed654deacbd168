"""What is done on a GPU, in order of worth: first whether everything runs, then how fast."""

from __future__ import annotations

from benchmarks.gpu.step import Step
from benchmarks.gpu.training import SUBJECTS, TABLES

PRECISIONS = ("fp32", "bf16")
COMPILED = ("sasrec", "hstu", "dcn")
IMPORTS = (  # by spare processes, before there is a step for them
    "benchmarks.gpu.speed",
    "benchmarks.gpu.training",
    "benchmarks.gpu.whole",
    "recsys.export.bundle",
)


def _step(name: str, function: str, seconds: float = 60.0, **options: object) -> Step:
    return Step(name, f"benchmarks.gpu.{function}", options, seconds)


def steps(device: str) -> list[Step]:
    """All steps on a device. Processors have no fused Adam."""
    placements = [name for name in TABLES if device != "cpu" or name != "sharded_adam"]
    trainings = [
        _step(
            f"train {subject} {precision} {tables}",
            "training:train",
            30,
            subject=subject,
            precision=precision,
            tables=tables,
        )
        for tables in placements
        for precision in PRECISIONS
        for subject in SUBJECTS
        # how tables lie matters little to what is done with their vectors
        if tables == "replicated" or subject in ("sasrec", "two_tower", *_rankers())
    ]
    speeds = [
        _step("tables", "speed:tables", 90),
        *(
            _step(f"epoch sasrec {precision}", "speed:epoch", 90, precision=precision)
            for precision in PRECISIONS
        ),
        *(
            _step(f"utilisation {name} {size}", "speed:utilisation", subject=name, batch_size=size)
            for size in (128, 1024)
            for name in ("hstu", "hstu_large")
        ),
        *(_step(f"compiled {name}", "speed:compiled", 90, subject=name) for name in COMPILED),
    ]
    return [
        _step("device", "whole:device"),
        *trainings,
        _step("suite", "whole:suite", 150),
        _step("quickstart", "whole:quickstart", 120),
        *speeds,
        _step("doctor", "whole:doctor"),
    ]


def _rankers() -> list[str]:
    return [name for name, parts in SUBJECTS.items() if "ranker" in parts]
