"""What may differ between a checkpoint and the model that it is loaded into, and how it is bridged.

New ids and larger tables take rows at the end, which start as new rows do. A feature may come or
go where that is allowed: the columns of a new one start at 0 in every layer that reads it, so
that answers are at first those of before. All else is refused, by name.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan

from feature_store.errors import DataError
from feature_store.vocabulary import OF_KEYS, Vocabulary
from recsys.embeddings.hashing import VERSION
from recsys.embeddings.layout import Layout
from recsys.embeddings.tables import Embeddings
from recsys.layers.frozen_vectors import FrozenVectors
from recsys.model import Columns, TrainedModel
from recsys.training.optimizers import Optimizer


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, out of what wraps it to be distributed."""
    inner: Any = model
    while not isinstance(inner, TrainedModel) and hasattr(inner, "module"):
        inner = inner.module
    return inner


def describe(model: nn.Module, optimizer: Optimizer | None) -> dict[str, Any]:
    """Features, tables, columns and optimizers of a model, as JSON types."""
    model = unwrap(model)
    description: dict[str, Any] = {
        "layout": None,
        "hash_version": None,
        "features": {},
        "tables": {},
        "frozen": {
            name: module.items
            for name, module in model.named_modules()
            if isinstance(module, FrozenVectors)
        },
    }
    config = None if optimizer is None else optimizer.config
    for layout in _layouts(model):
        description["layout"] = layout.config.layout
        if layout.hashed:
            description["hash_version"] = VERSION
        for name, spec in layout.features.items():
            ids = spec.vocabulary
            description["features"][name] = {
                "table": spec.table,
                "rows": spec.rows,
                "width": layout.width(name),
                "lookups": [[lookup.table, lookup.salt] for lookup in layout.lookups[name]],
                "vocabulary": None if ids is None else ids.fingerprint,
            }
        for table in layout.tables:
            fused = config is not None and table.sharded
            description["tables"][table.name] = {
                "rows": table.rows,
                "width": table.width,
                "optimizer": config.fused(table.name)[0] if config and fused else None,
                **({} if table.managed is None else {"eviction": table.managed.eviction}),
            }
    description["wraps"] = getattr(model, "wraps", "")
    made: tuple[str, ...] = getattr(model, "made", ())
    description["made"] = {name: list(model.get_buffer(name).shape) for name in made}
    columns: dict[str, Columns] = getattr(model, "columns", {})
    description["columns"] = {weight: dataclasses.asdict(of) for weight, of in columns.items()}
    description["optimizer"] = None if config is None else config.name
    return description


def _layouts(model: nn.Module) -> list[Layout]:
    return [module.layout for module in model.modules() if isinstance(module, Embeddings)]


def same_optimizers(saved: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the optimizers' state of one description fits the other."""
    tables = saved["tables"].keys() & now["tables"].keys()
    return saved["optimizer"] == now["optimizer"] and all(
        saved["tables"][name]["optimizer"] == now["tables"][name]["optimizer"] for name in tables
    )


@dataclass
class Changes:
    """How a model differs from a checkpoint. `grown` holds rows before and now, by table."""

    grown: dict[str, tuple[int, int]] = field(default_factory=dict)
    new_tables: list[str] = field(default_factory=list)
    new_ids: dict[str, int] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)  # kept for added features, or made anew
    columns: dict[str, tuple[Columns, Columns]] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What people should know of it."""
        notes = [f"{n:,} new ids of {feature}" for feature, n in self.new_ids.items()]
        notes += [
            f"table {t} has {now:,} rows, {old:,} before" for t, (old, now) in self.grown.items()
        ]
        notes += [f"feature {name} is new: it starts without effect" for name in self.added]
        return notes + [f"feature {name} is dropped" for name in self.dropped]


def compare(
    folder: Path,
    saved: dict[str, Any],
    model: nn.Module,
    optimizer: Optimizer | None,
    allow_features: bool = False,
) -> Changes:
    """What differs between a checkpoint, by its description, and a model.

    Raises DataError naming what cannot be bridged.
    """
    now, changes = describe(model, optimizer), Changes()
    for what in ("layout", "hash_version"):
        if now[what] is not None and saved.get(what) != now[what]:
            raise _another_model(folder, f"{what} {saved.get(what)}, now {now[what]}")
    frozen = saved.get("frozen", {})
    for name, items in now["frozen"].items():
        if frozen.get(name, items) != items:
            raise _another_model(
                folder, f"{name} holds vectors of {frozen[name]:,} items, now of {items:,}"
            )
    before, after = _all_features(saved), _all_features(now)
    changes.added = [name for name in after if name not in before]
    changes.dropped = [name for name in before if name not in after]
    if (changes.added or changes.dropped) and not allow_features:
        told = [f"+{name}" for name in changes.added] + [f"-{name}" for name in changes.dropped]
        raise _another_model(
            folder,
            f"features differ ({', '.join(told)})",
            "set trainer.allow_feature_changes=true to go on all the same",
        )
    own: dict[str, tuple[str, ...]] = getattr(unwrap(model), "own", {})
    changes.own = [weight for name in changes.added for weight in own.get(name, ())]
    sizes = saved.get("made", {})
    changes.own += [name for name, size in now["made"].items() if sizes.get(name) != size]
    specs = (spec for layout in _layouts(model) for spec in layout.features.values())
    vocabularies = {spec.name: spec.vocabulary for spec in specs}
    for name in (name for name in now["features"] if name in saved["features"]):
        _compare_feature(folder, name, saved, now, vocabularies[name], changes)
    for name in now["tables"]:
        if name in saved["tables"]:
            _compare_table(folder, name, saved, now, changes)
        else:
            changes.new_tables.append(name)
    if optimizer is not None and saved["optimizer"] != now["optimizer"]:
        raise _another_optimizer(folder, "what is dense", saved["optimizer"], now["optimizer"])
    for name, columns in now["columns"].items():
        old, new = _columns(saved["columns"].get(name, columns)), _columns(columns)
        if old != new:
            changes.columns[name] = (old, new)
    return changes


def _all_features(description: dict[str, Any]) -> list[str]:
    """Those with tables, and those that are numbers."""
    widths = (columns["widths"] for columns in description["columns"].values())
    read = [part.rpartition(".")[2] for of_weight in widths for part in of_weight]
    return list(dict.fromkeys([*description["features"], *read]))


def _compare_feature(
    folder: Path,
    name: str,
    saved: dict[str, Any],
    now: dict[str, Any],
    ids: Vocabulary | None,
    changes: Changes,
) -> None:
    old, new = saved["features"][name], now["features"][name]
    for what in ("table", "width"):
        if old[what] != new[what]:
            raise _another_model(
                folder, f"feature {name} has the {what} {old[what]}, now {new[what]}"
            )
    if old["lookups"] != new["lookups"]:
        raise _another_model(
            folder, f"feature {name} is looked up in other rows, or in another table"
        )
    if (old["vocabulary"], old["rows"]) == (new["vocabulary"], new["rows"]):
        return
    if now["hash_version"] is not None and "" in {_listed(old), _listed(new)}:
        return  # with a vocabulary or without, an id has the same hashed rows
    extended = new["rows"] >= old["rows"] and (
        ids is None or ids.fingerprint_of(old["rows"]) == old["vocabulary"]
    )
    if not extended:
        raise _another_model(folder, f"the ids of feature {name} are others, or in another order")
    changes.new_ids[name] = new["rows"] - old["rows"]


def _listed(feature: dict[str, Any]) -> str:
    """The fingerprint of a feature's vocabulary, empty where it has none."""
    fingerprint: str = feature["vocabulary"] or "rows"
    return "" if fingerprint.startswith(OF_KEYS) else fingerprint


def _compare_table(
    folder: Path, name: str, saved: dict[str, Any], now: dict[str, Any], changes: Changes
) -> None:
    old, new = saved["tables"][name], now["tables"][name]
    if old["width"] != new["width"]:
        raise _another_model(folder, f"table {name} is {old['width']} wide, now {new['width']}")
    if now["optimizer"] is not None and old["optimizer"] != new["optimizer"]:
        kinds = [table["optimizer"] or "a dense optimizer" for table in (old, new)]
        raise _another_optimizer(folder, f"table {name}", *kinds)
    if old.get("eviction") != new.get("eviction"):
        kinds = [of.get("eviction") or "none" for of in (old, new)]
        raise _another_model(folder, f"the eviction of table {name} was {kinds[0]}, now {kinds[1]}")
    if old["rows"] == new["rows"]:
        return
    if "eviction" in new:
        raise _another_model(
            folder,
            f"table {name} has {old['rows']:,} rows, now {new['rows']:,}, and ids hold them",
            f"keep embeddings.tables.{name}.rows, or train anew",
        )
    if now["hash_version"] is not None:
        raise _another_model(
            folder,
            f"table {name} has {old['rows']:,} rows, now {new['rows']:,}, and its ids are hashed "
            "over all of them",
            "keep embeddings.budget_mb; new ids move the shares of the hashed layout, and those "
            "of 'unified' they do not",
        )
    if new["rows"] < old["rows"]:
        raise _another_model(
            folder, f"table {name} has {old['rows']:,} rows, now only {new['rows']:,}"
        )
    changes.grown[name] = (old["rows"], new["rows"])


def _another_optimizer(folder: Path, what: str, old: str, new: str) -> DataError:
    return _another_model(
        folder,
        f"{what} was trained by {old}, now by {new}",
        "go on with the same trainer.optimizer and embeddings.shard_above_mb, or start a new run "
        "with trainer.start_from, which can do without optimizer state",
    )


def _another_model(folder: Path, what: str, way_out: str = "train anew") -> DataError:
    return DataError(f"{folder} is of another model: {what}; {way_out}")


def _columns(described: dict[str, Any]) -> Columns:
    return Columns(tuple(described["dims"]), described["widths"])


class GrowingLoadPlanner(DefaultLoadPlanner):
    """Reads what a checkpoint holds of a table that has grown, and leaves the rest as it is."""

    def __init__(self, changes: Changes) -> None:
        super().__init__()
        self._grown = changes.grown

    def create_local_plan(self) -> LoadPlan:
        """Take the first rows of grown tables, and of their optimizers' state."""
        assert self.metadata is not None
        stored = self.metadata.state_dict_metadata
        for name, wanted in self.state_dict.items():
            saved = stored.get(name)
            if not isinstance(saved, TensorStorageMetadata) or not saved.size:
                continue
            for table, (old, new) in self._grown.items():
                if f".tables.{table}." in name and (old, new) == (saved.size[0], wanted.size()[0]):
                    # chunks are matched by their offsets: those beyond the old end have no match
                    stored[name] = dataclasses.replace(saved, size=wanted.size())
        return super().create_local_plan()


class Patches:
    """Stands in, while a checkpoint is read, for tensors whose columns are of other features.

    Leaves out what belongs to new features; when the block ends, moves columns where they belong.
    """

    def __init__(self, tensors: dict[str, Any], changes: Changes) -> None:
        self._tensors, self._changes = tensors, changes
        self._moves: list[tuple[Tensor, Tensor, Columns, Columns]] = []

    def __enter__(self) -> dict[str, Any]:
        patched = {kind: dict(tensors) for kind, tensors in self._tensors.items()}
        kept = ("tables", "managed")
        new = [f".{of}.{name}." for name in self._changes.new_tables for of in kept]
        for kind in ("model", "optimizer"):
            tensors = patched.get(kind, {})
            own = self._changes.own
            for name in [n for n in tensors if n in own or any(mark in f".{n}" for mark in new)]:
                del tensors[name]
        for name, (old, now) in self._changes.columns.items():
            patched["model"][name] = self._stand_in(patched["model"][name], old, now)
            if state := patched.get("optimizer", {}).get(name):
                patched["optimizer"][name] = {
                    key: self._stand_in(value, old, now) if _has_columns(value) else value
                    for key, value in state.items()
                }
        return patched

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            for target, source, old, now in self._moves:
                _move(target, source, old, now)

    def _stand_in(self, target: Tensor, old: Columns, now: Columns) -> Tensor:
        size = list(target.shape)
        for dim in now.dims:
            size[dim] += sum(old.widths.values()) - sum(now.widths.values())
        source = target.new_zeros(size)
        self._moves.append((target, source, old, now))
        return source


def _has_columns(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


@torch.no_grad()
def _move(target: Tensor, source: Tensor, old: Columns, now: Columns) -> None:
    """Put the columns of `source` where their features lie in `target`; new ones are 0."""
    columns_of, start = {}, 0
    for name, width in old.widths.items():
        columns_of[name] = torch.arange(start, start + width)
        start += width
    take, put, start = [], [], 0
    for name, width in now.widths.items():
        if name in columns_of:
            take.append(columns_of[name])
            put.append(torch.arange(start, start + width))
        start += width
    from_, to = (torch.cat(columns).to(target.device) for columns in (take, put))
    moved = source
    for dim in now.dims:
        moved = moved.index_select(dim, from_)
    target.zero_()
    index = [slice(None)] * target.dim()
    if len(now.dims) == 2:
        target[to[:, None], to] = moved
    else:
        index[now.dims[0]] = to  # type: ignore[call-overload]
        target[tuple(index)] = moved
