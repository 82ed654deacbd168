"""`recsys ...`: each verb reads a config and calls one function of the pipelines."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

import recsys
from feature_store.errors import RecsysError
from pipelines.cli import looking, moving
from pipelines.cli import together as launching
from pipelines.cli.bundle_verbs import bundle
from pipelines.cli.fault import shortened, told_of_fault
from pipelines.cli.going_on import telling_how
from pipelines.cli.item_verbs import items
from pipelines.cli.log_verbs import log
from pipelines.cli.online_verbs import online
from pipelines.cli.stopping import Stopped, stoppable
from pipelines.cli.verbs import VERBS
from pipelines.escaping import shown

# Heavy imports happen inside the verbs, so that --help answers at once.
# What torch's native code warns of (a choice made on purpose, in sharding.py) tells users nothing.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a raw log to a verified candidate generator. Start with `recsys doctor`, then "
    "`recsys run pipelines/configs/synthetic_quickstart.toml`.",
)
embeddings = typer.Typer(no_args_is_help=True, help="Look into embedding tables.")

for verb in VERBS:
    app.command()(telling_how(verb))
app.command("config")(looking.show_config)
app.command("push")(moving.push)
app.command("pull")(moving.pull)
app.command("together", context_settings=launching.OPTIONS)(launching.together)
embeddings.command("inspect")(telling_how(looking.inspect_embeddings))
app.add_typer(embeddings, name="embeddings")

app.add_typer(bundle, name="bundle")
app.add_typer(items, name="items")
app.add_typer(online, name="online")
app.add_typer(log, name="log")


def tell_version(asked: bool) -> None:
    """Print the version, and end."""
    if asked:
        typer.echo(f"recsys {recsys.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=tell_version, help="The version.")
    ] = False,
) -> None:
    """What stands before any verb."""


def main() -> None:
    """Entry point: a user's error is one line on stderr and status 1, never a traceback; so is a
    disk that is full, and a signal, after which the status is the shell's, 130 or 143."""
    try:
        with stoppable():
            app(prog_name="recsys")
    except RecsysError as error:
        _end(shortened(shown(error)), 1)
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":  # of processes that work together one tells
            _end(str(stopped), stopped.status)
        sys.exit(stopped.status)
    except Exception as error:  # the last resort: what users can mend is told above
        _end(told_of_fault(error), 1)


def _end(words: str, status: int) -> NoReturn:
    """Say why, in a single write: lines of processes that work together stay apart."""
    sys.stderr.write(f"recsys: {words}\n")
    sys.exit(status)
