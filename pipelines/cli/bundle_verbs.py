"""`recsys bundle ...`: what people do with bundles besides asking them."""

from __future__ import annotations

import typer

from pipelines.cli import converting, deltas, differing, releasing, signing, upgrading

bundle = typer.Typer(
    no_args_is_help=True,
    help="Verify, sign, publish and roll back what is served, and put it into other engines.",
)
bundle.command("sign")(signing.sign)
bundle.command("convert")(converting.convert)
bundle.command("compatibility")(upgrading.compatibility)
bundle.command("reembed")(upgrading.reembed)
bundle.command("load")(converting.load)
bundle.command("verify")(releasing.verify)
bundle.command("diff")(differing.diff)
bundle.command("publish")(releasing.publish)
bundle.command("list")(releasing.list_versions)
bundle.command("rollback")(releasing.rollback)
bundle.command("delta")(deltas.delta)
bundle.command("apply")(deltas.apply)
