"""Verbs that make a run: run, and its steps one by one."""

from __future__ import annotations

import os

import typer

from pipelines.cli.arguments import Config, Force, Fresh, Overrides, Resume, load


def run(
    config: Config,
    overrides: Overrides = None,
    resume: Resume = False,
    fresh: Fresh = False,
    force: Force = False,
) -> None:
    """The main job: ingest if needed, train, evaluate, export, verify.

    What is done already is not done again: a finished training is used as it is, and figures and
    bundle are made where they are missing.

    Example: recsys run pipelines/configs/movielens_1m_sasrec.toml data.path=/data/ml-1m

    Several processes: torchrun --nproc-per-node 2 -m pipelines.cli run CONFIG
    """
    loaded = load(config, overrides)  # mistakes are told before what takes seconds to import
    from pipelines.cli.printing import print_finished
    from pipelines.run import run as job

    finished = job(loaded, resume=resume, fresh=fresh, force=force)
    if os.environ.get("RANK", "0") == "0":
        print_finished(finished)


def train(
    config: Config, overrides: Overrides = None, resume: Resume = False, fresh: Fresh = False
) -> None:
    """Train on an ingested log; leaves checkpoints in the run's folder."""
    loaded = load(config, overrides)
    from pipelines.train import train as job

    job(loaded, resume=resume, fresh=fresh)
    typer.echo(f"trained: {loaded.folder}")


def export(config: Config, overrides: Overrides = None, force: Force = False) -> None:
    """Write and verify the bundle of a trained and evaluated run."""
    loaded = load(config, overrides)
    from pipelines.export import export as job
    from recsys.runs.folder import RunFolder

    job(loaded, force=force)
    typer.echo(f"verified: {RunFolder(loaded.folder).bundle}")
