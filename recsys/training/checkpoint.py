"""Checkpoints through torch.distributed.checkpoint: saved on N processes, loaded on M."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from feature_store.errors import DataError
from recsys.optimizers import Optimizer
from recsys.training.distributed import Group

_STATE = "state.json"


def save(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer | None,
    state: dict[str, Any],
    group: Group,
) -> None:
    """Write a checkpoint that appears whole or not at all. Every process must call this.

    `state` is JSON: reader position, step, best value and the like.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    if group.leads:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    group.barrier()
    _quietly(dcp.save, _tensors(model, optimizer, group, random=True), checkpoint_id=str(aside))
    group.barrier()
    if group.leads:
        (aside / _STATE).write_text(json.dumps({**state, "world": group.world}, indent=2) + "\n")
        _remove(folder)
        aside.rename(folder)
    group.barrier()


def load(
    folder: Path, model: nn.Module, optimizer: Optimizer | None, group: Group
) -> dict[str, Any]:
    """Restore a checkpoint, in place; returns its state. Any number of processes may do so.

    Random state is restored when the number of processes is that of the save. Raises DataError
    when a file is missing or the weights are those of another model.
    """
    state = read_state(folder)
    same = state["world"] == group.world
    if optimizer is not None:
        optimizer.dense.init_state({})  # else Adam's moments would silently not be restored
    tensors = _tensors(model, optimizer, group, random=same)
    _read(folder, tensors)
    model.load_state_dict(tensors["model"])
    if optimizer is not None:
        optimizer.all.load_state_dict(tensors["optimizer"])
    if same:
        torch.set_rng_state(tensors["random"][f"rank{group.rank}"])
        if f"cuda{group.rank}" in tensors["random"]:
            torch.cuda.set_rng_state(tensors["random"][f"cuda{group.rank}"])
    return state


def load_unsharded(folder: Path, model: nn.Module) -> dict[str, Any]:
    """Load the weights alone into a model that is not sharded, without a process group.

    Raises DataError as `load`.
    """
    state = read_state(folder)
    tensors = {"model": model.state_dict()}
    _read(folder, tensors, no_dist=True)
    model.load_state_dict(tensors["model"])
    return state


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON part. Raises DataError when the folder holds no whole checkpoint."""
    try:
        return json.loads((folder / _STATE).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no whole checkpoint: {error}") from None


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint `step-*` below `folder`, or None."""
    found = sorted(p for p in folder.glob("step-*") if (p / _STATE).exists())
    return found[-1] if found else None


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` whole checkpoints `step-*`."""
    whole = sorted(p for p in folder.glob("step-*") if (p / _STATE).exists())
    for old in set(folder.glob("step-*")) - set(whole[-keep:]):
        _remove(old)


def _remove(folder: Path) -> None:
    """Remove a checkpoint; one that is half removed is no longer taken for a checkpoint."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    if folder.exists():
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _read(folder: Path, tensors: dict[str, Any], **options: Any) -> None:
    try:
        _quietly(dcp.load, tensors, checkpoint_id=str(folder), **options)
    except CheckpointException as error:
        reason = next(iter(error.failures.values()))[0]
        text = " ".join(str(reason).split())
        raise DataError(f"{folder} cannot be loaded: {text}") from None


def _tensors(
    model: nn.Module, optimizer: Optimizer | None, group: Group, *, random: bool
) -> dict[str, Any]:
    tensors: dict[str, Any] = {"model": model.state_dict()}
    if optimizer is not None:
        tensors["optimizer"] = optimizer.all.state_dict()
    if random:
        states: dict[str, Tensor] = {f"rank{group.rank}": torch.get_rng_state()}
        if group.device.type == "cuda":
            states[f"cuda{group.rank}"] = torch.cuda.get_rng_state()
        tensors["random"] = states
    return tensors


def _quietly(call: Any, *arguments: Any, **options: Any) -> None:
    with warnings.catch_warnings():  # DCP warns of its own internals on every call
        warnings.simplefilter("ignore")
        call(*arguments, **options)
