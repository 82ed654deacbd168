"""Trains and measures cases: train.py STARTS.json, where STARTS is [[processes, [case ...]] ...].

The program imports everything once and is forked anew for each start, one after the other: imports
take longer than the rest. In place of a number of processes may stand HOSTS: then two of torchrun's
agents meet, as on two machines, and each has a fork do the work.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.run import config_from_args, parse_args

from conformance import (
    LAYOUTS,
    Recorder,
    batch_from,
    fresh,
    measure,
    predict,
    rows_of,
    small,
    trainer_of,
    training,
)
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.distributed import Group, join
from recsys.embeddings.layout import FeatureSpec, make_layout
from recsys.embeddings.options import EmbeddingsConfig, Evicting, PerFeature, TableConfig
from recsys.embeddings.tables import Embeddings
from recsys.model import Model, TrainedModel
from recsys.rankers.base import Ranker
from recsys.retrievers.fitted import FittedRetriever
from recsys.training import checkpoint
from recsys.training.growth import unwrap
from recsys.training.optimizers import fuse
from recsys.training.options import OptimizerConfig
from recsys.training.sharding import shard

HOSTS = "hosts"
EPOCH, CHECKPOINT_STEP = 4, 2  # steps of an epoch, and one in its middle
# by placement: how all tables lie, and their fused optimizer
PLACEMENTS = {
    "replicated": ("replicated", "rowwise_adagrad"),
    "row_wise": ("row_wise", "rowwise_adagrad"),
    "table_wise": ("table_wise", "rowwise_adagrad"),
    "planned": ("auto", "adagrad"),
    "column_wise": ("column_wise", "adagrad"),
}
# the same, where far more users come than there are rows
EVICTING = {f"{placement}_evicting": placement for placement in ("replicated", "row_wise")}
ROWS = Evicting(tables={"user_id": TableConfig(vocabulary="none", rows=40)})
# the same, where tables' rows shrink by how rarely an epoch reads them: a lot, so that it shows
AWARE = {f"{placement}_aware": placement for placement in ("replicated", "row_wise")}
DECAYS = {"replicated_aware": 400.0, "row_wise_aware": 40.0}  # at a tenth of the rate


@dataclass(frozen=True)
class Case:
    """A model and its tables; `folder` takes checkpoints and `outcome.pt`.

    `giver` is the folder of another case, whose checkpoint in the middle this one goes on from.
    """

    model: str
    layout: str
    placement: str
    examples: str
    folder: str
    giver: str | None = None

    def config(self, examples: Examples) -> EmbeddingsConfig:
        """The layout, with all tables placed alike."""
        sharding, _ = PLACEMENTS[_plain(self.placement)]
        layout = ROWS if self.placement in EVICTING else LAYOUTS[self.layout]
        plain: Any = fresh(small(self.model), examples, layout)
        names = [
            t.name for m in plain.modules() if isinstance(m, Embeddings) for t in m.layout.tables
        ]
        special = {name: layout.tables.get(name, TableConfig()) for name in names}
        tables = {n: of.model_copy(update={"sharding": sharding}) for n, of in special.items()}
        above = 0 if sharding == "auto" else 64
        return layout.model_copy(update={"tables": tables, "shard_above_mb": above})


def _plain(placement: str) -> str:
    return (AWARE | EVICTING).get(placement, placement)


def work(case: Case, group: Group) -> None:
    """Train for two epochs, or for what another case left of them, and measure."""
    middle = f"checkpoints/step-{CHECKPOINT_STEP:09d}"
    if case.giver is not None and group.leads:
        shutil.copytree(Path(case.giver) / middle, Path(case.folder) / middle)
    group.barrier()
    examples, folder, recorder = Examples(Path(case.examples)), Path(case.folder), Recorder()
    config = small(case.model)
    rows_of = examples.summary.rows_of
    rows = 32 if rows_of.per == "user" else 230 if rows_of.labels else 208  # in EPOCH batches
    embeddings = case.config(examples)
    model = fresh(config, examples, embeddings)
    if isinstance(model, FittedRetriever):
        model.fit(examples.interactions(), examples)
    else:
        _, fused = PLACEMENTS[_plain(case.placement)]
        optimizer = OptimizerConfig(
            learning_rate=2e-3,
            sharded=fused,  # type: ignore[arg-type]
            mini_batch_aware_decay=DECAYS.get(case.placement, 0.0),
        )
        trainer = trainer_of(
            config,
            examples,
            folder / "checkpoints",
            group,
            training(
                epochs=2, optimizer=optimizer, checkpoint_every_steps=CHECKPOINT_STEP, keep=100
            ),
            embeddings=embeddings,
            reader=ReaderConfig(batch_size=rows, lanes=4),
            validate=lambda model: figures(model, examples, group, "validation"),
            listener=recorder,
        )
        if case.giver is not None and case.placement in EVICTING:
            checkpoint.load(folder / middle, trainer.model, trainer.optimizer, group)
            state = {"progress": {"step": CHECKPOINT_STEP}}
            checkpoint.save(folder / "moved", trainer.model, trainer.optimizer, state, group)
        trainer.fit(resume=True)
        model = unwrap(trainer.model)
        assert isinstance(model, TrainedModel)
    model.eval()
    outcome = {
        "losses": torch.tensor(recorder.losses),
        "validation": [e[_first(e)] for e in recorder.epochs],
        "answers": answers(model, examples),
        "metrics": figures(model, examples, group, "test"),
    }
    if group.leads:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(outcome, folder / "outcome.pt")


def _first(metrics: dict[str, float]) -> str:
    return "AUC" if "AUC" in metrics else "NDCG@10"


def figures(model: Model, examples: Examples, group: Group, role: str) -> dict[str, float]:
    """Of a retriever or a ranker; with what users there were, so that none is left out."""
    if isinstance(model, Ranker):
        found = predict(model, examples, group, role)
        return found.metrics | {"users": float(sum(set(found.users.tolist())))}
    result = measure(model, examples, group, role)  # type: ignore[arg-type]
    users = result.per_user["user"].to_pylist()
    assert len(set(users)) == len(users)
    return result.metrics | {"users": float(sum(users))}


@torch.no_grad()
def answers(model: Any, examples: Examples) -> torch.Tensor:
    """Item vectors, or logits of the first test rows. Every process must ask."""
    if not isinstance(model, Ranker):
        return model.item_matrix(torch.arange(examples.num_items))
    return model.predict(batch_from(model, rows_of(model, examples).slice(0, 40)))


def outcome(case: Case) -> dict[str, Any]:
    """What `work` measured."""
    return torch.load(Path(case.folder) / "outcome.pt")


def look_up_uneven_bags(group: Group) -> None:
    """Bags of as many rows as there are items on rank 0, and of one fewer on the others."""
    specs = [FeatureSpec(name, name, 12, pooled=True) for name in ("badges", "words")]
    embeddings = Embeddings(make_layout(specs, 4, PerFeature(shard_above_mb=0)))
    fuse(embeddings, OptimizerConfig())
    model = shard(embeddings, group, OptimizerConfig())
    for table in model.state_dict().values():
        for part in table.local_shards():
            torch.nn.init.ones_(part.tensor)
    rows = 6 - min(group.rank, 1)
    bags = {"badges": torch.ones(rows, 2).long(), "words": torch.tensor([[3, 0]] * 5 + [[0, 0]])}
    found = model({}, bags)
    torch.testing.assert_close(found["badges"], torch.ones(rows, 4))
    torch.testing.assert_close(found["words"], torch.tensor([[1.0] * 4] * 5 + [[0.0] * 4]))


def work_together(cases: Iterable[Case]) -> None:
    """Join the others and do all cases."""
    with join("cpu") as group:
        if group.world > 1:
            look_up_uneven_bags(group)
        for case in cases:
            work(case, group)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def work_in_rank(rank: int, world: int, port: int, cases: list[Case]) -> None:
    if world > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    work_together(cases)


def work_on_host(port: int, cases: list[Case]) -> None:
    """What torchrun does on one of two hosts, but that the process it starts is a fork."""
    where = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test"]
    config, _, _ = config_from_args(
        parse_args(["--nnodes=2", "--nproc-per-node=1", *where, sys.argv[0]])
    )
    config.start_method = "fork"
    elastic_launch(config, work_together)(cases)


def fork(works: list[Callable[[], None]]) -> None:
    """Do each in a copy of this process; exits when one of them fails."""
    children = set()
    for work in works:
        child = os.fork()
        if child:
            children.add(child)
            continue
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    while children:
        child, status = os.wait()
        children.remove(child)
        if status:
            for other in children:  # they would wait for it
                os.kill(other, signal.SIGKILL)
            sys.exit(f"a process of {len(works)} failed")


if __name__ == "__main__":
    for world, dicts in json.loads(Path(sys.argv[1]).read_text()):
        cases, port = [Case(**fields) for fields in dicts], free_port()
        if world == HOSTS:
            fork([partial(work_on_host, port, cases)] * 2)
        else:
            fork([partial(work_in_rank, rank, world, port, cases) for rank in range(world)])
