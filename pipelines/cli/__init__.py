"""`recsys ...`: each verb reads a config and calls one function of the pipelines."""

from __future__ import annotations

import os
import sys

import typer

from feature_store.errors import RecsysError
from pipelines.cli import asking, comparing, ingesting, looking, scoring, signing, tuning, working
from pipelines.cli.fault import one_line, told_of_fault
from pipelines.cli.stopping import Stopped, stoppable

# Heavy imports happen inside the verbs, so that --help answers at once.
# What torch's native code warns of (a choice made on purpose, in sharding.py) tells users nothing.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a raw log to a verified candidate generator. Start with `recsys doctor`, then "
    "`recsys run pipelines/configs/synthetic_quickstart.toml`.",
)
app.command()(working.run)
app.command()(ingesting.ingest)
app.command()(tuning.tune)
app.command()(working.train)
app.command()(working.evaluate)
app.command()(comparing.compare)
app.command()(working.export)
app.command()(asking.recommend)
app.command()(scoring.score)
app.command()(looking.plan)
app.command()(looking.doctor)
app.command("config")(looking.show_config)

embeddings = typer.Typer(no_args_is_help=True, help="Look into embedding tables.")
embeddings.command("inspect")(looking.inspect_embeddings)
app.add_typer(embeddings, name="embeddings")

bundle = typer.Typer(no_args_is_help=True, help="Say who made a bundle.")
bundle.command("sign")(signing.sign)
app.add_typer(bundle, name="bundle")


def main() -> None:
    """Entry point: a user's error is one line on stderr and status 1, never a traceback; so is a
    disk that is full, and a signal, after which the status is the shell's, 130 or 143."""
    try:
        with stoppable():
            app()
    except RecsysError as error:
        sys.exit(f"recsys: {one_line(error)}")
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":  # of processes that work together one tells
            print(f"recsys: {stopped}", file=sys.stderr)
        sys.exit(stopped.status)
    except Exception as error:  # the last resort: what users can mend is told above
        sys.exit(f"recsys: {told_of_fault(error)}")
