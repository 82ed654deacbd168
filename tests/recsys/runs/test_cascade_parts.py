"""Which lists a part of a cascade may have learned from, and what lists its requests then hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from feature_store.errors import ConfigError, DataError
from recsys.config import RunConfig, parse_config
from recsys.runs.parts import check_lists, part_configs, rows_of

DATA = {"data": {"source": "synthetic"}}


def ranker(split: dict[str, Any], history: dict[str, Any], **labels: Any) -> RunConfig:
    split = {"protocol": "global_time", **split}
    model = {"name": "din", "histories": {"past": history}}
    return parse_config({"name": "r", **DATA, "split": split, "labels": labels, "ranker": model})


def cascade(folder: Path, split: dict[str, Any], **parts: RunConfig) -> RunConfig:
    """A cascade of runs whose folders hold nothing but their configs."""
    for name, config in parts.items():
        (folder / name).mkdir()
        (folder / name / "config.toml").write_text(tomli_w.dumps(config.to_dict()))
    generators = {name: {"run": str(folder / name)} for name in parts if name != "fine"}
    options = {"generators": generators, "fine": {"run": str(folder / "fine")}}
    split = {"protocol": "global_time", **split}
    return parse_config({"name": "c", **DATA, "split": split, "cascade": options})


def retriever(**split: Any) -> RunConfig:
    split = {"protocol": "global_time", **split}
    return parse_config({"name": "g", **DATA, "split": split, "retriever": {"name": "sasrec"}})


CLICKS = {"event_types": ["click", "purchase"]}


@pytest.mark.parametrize(
    ("own", "history", "labels", "here", "message"),
    [
        ({}, {}, {}, {}, None),
        ({}, CLICKS, {}, CLICKS, None),
        ({}, CLICKS, {}, {"event_types": ["purchase", "click"]}, None),
        ({}, {"event_types": ["click"]}, {}, CLICKS, None),
        ({}, {}, {}, CLICKS, "of events, and here they hold events click, purchase"),
        ({}, CLICKS, {}, {"event_types": ["click"]}, "purchase, and here they hold events click"),
        ({}, {"positives": True}, {}, {"min_label": 1}, None),
        ({}, {"positives": True}, {"positive_from": 4}, {"min_label": 4}, None),
        ({}, {"positives": True}, {"positive_from": 4}, {}, "of events from label 4 on, and here"),
        ({}, {}, {}, {"min_label": 4}, "of events, and here they hold events from label 4 on"),
        ({"min_label": 2}, {}, {}, {"min_label": 2}, None),
    ],
)
def test_lists_hold_the_events_that_a_part_has_learned_from(
    own: dict[str, Any],
    history: dict[str, Any],
    labels: dict[str, Any],
    here: dict[str, Any],
    message: str | None,
    tmp_path: Path,
) -> None:
    part = ranker(own, history, **labels)
    config = cascade(tmp_path, here, g=retriever(**here), fine=part)
    assert dict(rows_of(config).histories) == {
        "history": (),
        "past": tuple(history.get("event_types", ())),
    }
    if message is None:
        check_lists(config, "cascade.fine", part, ["past"])
    else:
        with pytest.raises(ConfigError, match=message):
            check_lists(config, "cascade.fine", part, ["past"])


def test_two_parts_may_not_call_different_lists_alike(tmp_path: Path) -> None:
    one, other = ranker({}, CLICKS), ranker({}, {"event_types": ["click"]})
    config = cascade(tmp_path, {}, g=retriever(), fine=one)
    assert config.cascade is not None
    coarse = tmp_path / "coarse"
    coarse.mkdir()
    (coarse / "config.toml").write_text(tomli_w.dumps(other.to_dict()))
    tree = config.to_dict()
    tree["cascade"]["coarse"] = {"run": str(coarse)}
    with pytest.raises(ConfigError, match=r"cascade\.fine: .*other events in the list 'past'"):
        rows_of(parse_config(tree))


def test_a_cascade_is_no_part_of_another(tmp_path: Path) -> None:
    inner = cascade(tmp_path, {}, g=retriever(), fine=ranker({}, {}))
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "config.toml").write_text(tomli_w.dumps(inner.to_dict()))
    tree = inner.to_dict()
    tree["cascade"]["generators"]["inner"] = {"run": str(tmp_path / "inner")}
    with pytest.raises(ConfigError, match=r"generators\.inner: .*run of a cascade, not of a retr"):
        part_configs(parse_config(tree))
    tree["cascade"]["generators"]["inner"] = {"run": str(tmp_path / "gone")}
    with pytest.raises(DataError, match=r"generators\.inner: .*gone is not a run"):
        rows_of(parse_config(tree))
