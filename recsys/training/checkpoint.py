"""Checkpoints through torch.distributed.checkpoint: saved on N processes, loaded on M.

A checkpoint is a folder `step-000000120` that appears whole or not at all. It holds the files of
torch.distributed.checkpoint, written by all processes, and `state.json`, written last:

    format, world    of the save
    files            name -> bytes and SHA-256 of every other file
    model            features and tables, as `recsys.training.growth.describe` tells them
    ...              whatever the trainer adds: position, progress, which step was the best

Weights of tables are named after the tables, not after the collections that hold them, so that it
does not matter how they lie on the processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from feature_store.errors import DataError
from recsys.distributed import Group
from recsys.embeddings.tables import materialise
from recsys.training.growth import Changes, GrowingLoadPlanner, Patches, compare, describe
from recsys.training.metadata import METADATA, CheckedReader
from recsys.training.optimizers import Optimizer
from recsys.training.state import FORMAT, STATE, read_state

BEST = "best_step"  # in the state: the step whose weights are the best so far
_TABLE = re.compile(r"sharded\.\w+\.(?:embeddings|embedding_bags)\.")
_PARTIAL, _REMOVED = "partial", "removed"
_BLOCK = 1 << 22

Tensors = dict[str, Any]


def folder_of(folder: Path, step: int) -> Path:
    """The checkpoint of a step below `folder`."""
    return folder / f"step-{step:09d}"


def tensors_of(model: nn.Module, optimizer: Optimizer | None, group: Group) -> Tensors:
    """Weights, optimizer state and this process's random state, by names that are the same on
    any number of processes."""
    tensors: Tensors = {"model": _renamed(model.state_dict())}
    if optimizer is not None:
        tensors["optimizer"] = _renamed(optimizer.all.state_dict()["state"])
    states: dict[str, Tensor] = {f"rank{group.rank}": torch.get_rng_state()}
    if group.device.type == "cuda":
        states[f"cuda{group.rank}"] = torch.cuda.get_rng_state()
    tensors["random"] = states
    return tensors


def save(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer | None,
    state: dict[str, Any],
    group: Group,
) -> None:
    """Write a checkpoint now. Every process must call this; see `write`."""
    state = {**state, "model": describe(model, optimizer)}
    write(folder, tensors_of(model, optimizer, group), state, group)


def write(folder: Path, tensors: Tensors, state: dict[str, Any], group: Group) -> None:
    """Write `tensors` and `state` (JSON) as a checkpoint that appears whole or not at all.

    Every process must call this, and may do so in a thread beside its training.

    Raises DataError on all processes when any of them cannot write; earlier checkpoints stand.
    """
    aside = _hidden(folder, _PARTIAL)
    problem, files = None, {}
    if group.leads:
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        except OSError as error:
            problem = str(error)
    _agree(folder, problem, group)
    try:
        _quietly(dcp.save, tensors, checkpoint_id=str(aside), process_group=group.background)
        written = aside.glob(f"__{group.rank}_*")  # torch names files after the process
        files = {path.name: _facts(path) for path in written}
    except CheckpointException as error:
        problem = _reason(error)
    except OSError as error:
        problem = str(error)
    reports = group.gather((problem, files), background=True)
    problem = next((problem for problem, _ in reports if problem), None)
    if group.leads and problem is None:
        try:
            for _, of_process in reports:
                files |= of_process
            files[METADATA] = _facts(aside / METADATA)
            contents = {"format": FORMAT, "world": group.world, "files": files, **state}
            _write_synced(aside / STATE, json.dumps(contents, indent=2) + "\n")
            _remove(folder)
            aside.rename(folder)
            _sync(folder.parent)
        except OSError as error:
            problem = str(error)
    if group.leads and problem is not None:  # nobody writes there any more
        shutil.rmtree(aside, ignore_errors=True)
    _agree(folder, problem, group)


def load(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer | None,
    group: Group,
    *,
    allow_features: bool = False,
    random: bool = True,
    submodule: str = "",
) -> tuple[dict[str, Any], Changes]:
    """Restore a checkpoint, in place; any number of processes may do so.

    Tables may have grown; with `allow_features` features may have come or gone, too. Random state
    is restored where `random` is set and the number of processes is that of the save. With
    `submodule` the checkpoint is of that part of the model alone, and the rest stays as it is.
    Returns the state and what differed.

    Raises DataError when a file is missing or altered, or the checkpoint is of another model.
    """
    state = read_state(folder)
    _verify(folder, state["files"], group)
    changes = compare(folder, state["model"], model, optimizer, allow_features)
    same = random and state["world"] == group.world
    if optimizer is not None:
        optimizer.make_state()
    tensors = tensors_of(model, optimizer, group)
    if not same:
        del tensors["random"]
    if submodule:
        tensors["model"] = {
            name.removeprefix(f"{submodule}."): value
            for name, value in tensors["model"].items()
            if name.startswith(f"{submodule}.")
        }
    with Patches(tensors, changes) as patched:
        _read(folder, state["files"], patched, changes, process_group=group.background)
    _put(model, tensors["model"], submodule)
    if optimizer is not None:
        names = _names(optimizer.all.state_dict()["state"])
        states = {names[name]: value for name, value in tensors["optimizer"].items()}
        optimizer.all.load_state_dict({"state": states})
    if same:
        torch.set_rng_state(tensors["random"][f"rank{group.rank}"])
        if f"cuda{group.rank}" in tensors["random"]:
            torch.cuda.set_rng_state(tensors["random"][f"cuda{group.rank}"])
    return state, changes


def load_unsharded(folder: Path, model: nn.Module) -> dict[str, Any]:
    """Load the weights alone into a model that is not sharded, without a process group.

    Tables may have grown. Raises DataError as `load`.
    """
    state = read_state(folder)
    _verify(folder, state["files"])
    changes = compare(folder, state["model"], model, None)
    tensors = {"model": _renamed(materialise(model).state_dict())}
    with Patches(tensors, changes) as patched:
        _read(folder, state["files"], patched, changes, no_dist=True)
    _put(model, tensors["model"])
    return state


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint below `folder`, or None."""
    return max(_complete(folder), default=None)


def best(folder: Path) -> Path:
    """The checkpoint with the best weights below `folder`. Raises DataError when there is none."""
    last = newest(folder)
    state = {} if last is None else read_state(last)
    step = state.get(BEST)
    if step is None and state.get("progress", {}).get("history"):
        raise DataError(
            f"{folder}: validation gave no epoch a figure to be chosen by: choose another "
            "trainer.metric, and train anew with --fresh"
        )
    if step is None:
        raise DataError(f"{folder} holds no checkpoint that was validated: train on with --resume")
    return folder_of(folder, step)


def torn(folder: Path) -> list[str]:
    """Names of checkpoints that were being written, or removed, when a program was killed."""
    hidden = [path.name[1:].rpartition(".") for path in folder.glob(f".step-*.{_PARTIAL}")]
    broken = set(folder.glob("step-*")) - set(_complete(folder))
    return sorted([name for name, _, _ in hidden] + [path.name for path in broken])


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` whole checkpoints and the best, and what killed programs
    were writing or removing."""
    kept = set(sorted(_complete(folder))[-keep:])
    if (last := newest(folder)) is not None:
        kept.add(folder_of(folder, read_state(last).get(BEST) or 0))
    for old in set(folder.glob("step-*")) - kept:
        _remove(old)
    for why in (_PARTIAL, _REMOVED):
        for left in folder.glob(f".step-*.{why}"):
            shutil.rmtree(left, ignore_errors=True)


def _complete(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if (path / STATE).exists()]


def _hidden(folder: Path, why: str) -> Path:
    return folder.with_name(f".{folder.name}.{why}")


def _remove(folder: Path) -> None:
    """Remove a checkpoint; one that is half removed is no longer taken for a checkpoint."""
    hidden = _hidden(folder, _REMOVED)
    shutil.rmtree(hidden, ignore_errors=True)
    if folder.exists():
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _agree(folder: Path, problem: str | None, group: Group) -> None:
    """Raises DataError on all processes when any has a problem."""
    problem = next(filter(None, group.gather(problem, background=True)), None)
    if problem is not None:
        at = folder.parent
        while not at.exists():
            at = at.parent
        free = shutil.disk_usage(at).free / 1e9
        raise DataError(
            f"{folder} cannot be written ({problem}; {free:.1f} GB of that disk are free); earlier "
            "checkpoints stand: make room and go on with --resume"
        )


# -- names -----------------------------------------------------------------------------------


def _canonical(name: str) -> str:
    return _TABLE.sub("tables.", name)


def _names(state: dict[str, Any]) -> dict[str, str]:
    """Canonical name -> the model's own."""
    return {_canonical(name): name for name in state}


def _renamed(state: dict[str, Any]) -> dict[str, Any]:
    return {_canonical(name): value for name, value in state.items()}


def _put(model: nn.Module, tensors: dict[str, Any], submodule: str = "") -> None:
    state = model.state_dict()
    names, prefix = _names(state), f"{submodule}." if submodule else ""
    read = {names[prefix + name]: value for name, value in tensors.items()}
    model.load_state_dict(state | read if submodule else read)


# -- files -----------------------------------------------------------------------------------


def _facts(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _verify(folder: Path, files: dict[str, Any], group: Group | None = None) -> None:
    """Compare files with their checksums, each process a part of them.

    Raises DataError on all processes, naming a file that is missing or altered.
    """
    rank, world = (0, 1) if group is None else (group.rank, group.world)
    problem = None
    for name in sorted(files)[rank::world]:
        path = folder / name
        if path.is_symlink() or not path.is_file():
            problem = f"{name} is missing, or no plain file"
        elif _facts(path) != files[name]:
            problem = f"{name} was altered since it was written"
    problems = [problem] if group is None else group.gather(problem, background=True)
    for problem in filter(None, problems):
        raise DataError(
            f"{folder} cannot be loaded: {problem}; remove the folder to use an earlier checkpoint"
        )


def _read(
    folder: Path, files: dict[str, Any], tensors: Tensors, changes: Changes, **options: Any
) -> None:
    reader, planner = CheckedReader(folder, files), GrowingLoadPlanner(changes)
    try:
        _quietly(dcp.load, tensors, storage_reader=reader, planner=planner, **options)
    except CheckpointException as error:
        raise DataError(f"{folder} cannot be loaded: {_reason(error)}") from None


def _reason(error: CheckpointException) -> str:
    failure = next(iter(error.failures.values()))[0]
    return " ".join(str(failure).split())


def _write_synced(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _quietly(call: Any, *arguments: Any, **options: Any) -> None:
    with warnings.catch_warnings():  # DCP warns of its own internals on every call
        warnings.simplefilter("ignore")
        call(*arguments, **options)
