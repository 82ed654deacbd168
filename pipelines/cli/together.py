"""`recsys together`: a verb on several processes, of which one that dies is told in a line."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

import typer

from feature_store.errors import DataError

OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}  # torchrun knows them
_MODULE = "pipelines.cli"


def together(words: typer.Context) -> None:
    """Run a verb on several processes: torchrun's options, then the verb and its own.

    Unless others are named, the processes are on this host. The status is 1 where one of them
    fails.
    """
    launch(asked_of(words.args))


def asked_of(words: list[str]) -> Any:
    """What torchrun makes of its options, or of its variables PET_..., and the verb behind them."""
    from torch.distributed.run import parse_args

    asked = parse_args(words)
    asked.module, verb = True, [asked.training_script, *asked.training_script_args]
    asked.training_script, asked.training_script_args = _MODULE, verb
    return asked


def launch(asked: Any) -> None:
    """What torchrun does with its parsed arguments, without its pages about one that died.

    Raises DataError naming a process that a signal has ended; ends with status 1 where one has
    failed and told why, and as the shell does where a signal has stopped this one.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import run

    asked.standalone = asked.standalone or on_this_host(asked)
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        run(asked)
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode >= 0:  # it has said why
            sys.exit(1)
        raise DataError(
            f"rank {rank} (process {failure.pid}) was ended by "
            f"{signal.Signals(-failure.exitcode).name}; the same command with --resume goes on "
            "from the last checkpoint"
        ) from None
    finally:
        logging.disable(level)


def on_this_host(asked: Any) -> bool:
    """Whether torchrun's arguments name no other hosts."""
    return asked.nnodes in ("1", "1:1") and not asked.rdzv_endpoint
