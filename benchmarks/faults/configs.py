"""The configs of the small jobs, as the trees that TOML files hold."""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]

_SMALL: Tree = {
    "seed": 1,
    "output": "runs",
    "engine": {"threads": 1},
    "evaluation": {"ks": [10], "replicates": 100},
    "export": {"golden": 2},
    "tracking": {"enabled": False},
}
_SYNTHETIC = {"source": "synthetic", "users": 40, "items": 24, "clusters": 3, "events": 10}
_SASREC = {"name": "sasrec", "width": 8, "blocks": 1, "max_length": 6, "negatives": 4}
_TRAINER = {"epochs": 3, "device": "cpu", "checkpoint_every_steps": 1, "keep": 2}

TREES: dict[str, Tree] = {
    # files that a log is made of, and grows by; a sequence model of listed ids
    "tiny": {
        "data": {
            "source": "parquet",
            "path": "raw/*.parquet",
            "columns": {"user": "user", "item": "item", "time": "time"},
        },
        "split": {"protocol": "leave_one_out"},
        "retriever": _SASREC,
        "reader": {"batch_size": 8},
        "trainer": _TRAINER,
        "baselines": ["popularity"],
    },
    # rows with clicks and what follows them; users without a vocabulary, whose rows go round
    "shop": {
        "data": _SYNTHETIC,
        "split": {"protocol": "global_time"},
        "labels": {"tasks": {"purchase": {"event_types": ["purchase"], "among": ["click"]}}},
        "ranker": {"name": "dcn", "width": 8, "hidden": [8]},
        "embeddings": {
            "layout": "evicting",
            "tables": {"user_id": {"vocabulary": "none", "rows": 12}},
        },
        "reader": {"batch_size": 64},
        "trainer": {**_TRAINER, "checkpoint_every_steps": 2},
    },
    # days that follow one another
    "days": {
        "data": {**_SYNTHETIC, "days": 9},
        "split": {
            "protocol": "global_time",
            "event_types": ["click", "purchase"],
            "validation_days": 1,
            "test_days": 1,
        },
        "retriever": _SASREC,
        "reader": {"batch_size": 8},
        "trainer": {**_TRAINER, "epochs": 2, "refit": True},
        "baselines": ["popularity"],
        "daily": {"max_fall": 0.99, "confidence": 0.5, "epochs": 1},
    },
}
TREES = {name: {"name": name, **_SMALL, **tree} for name, tree in TREES.items()}
