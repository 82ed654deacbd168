"""What people are told of an export."""

from __future__ import annotations

import shlex

from pipelines.index_table import index_table
from pipelines.progress import console
from recsys.config import RunConfig
from recsys.serving.manifest import GeneratorRecord, Manifest, PartRecord, Quantisation


def tell_quantisation(quantisation: Quantisation | None) -> None:
    """Say what became of tables that were to be quantised."""
    if quantisation is None:
        return
    for name, table in quantisation.tables.items():
        why = f" ({table.reason})" if table.reason else ""
        console.print(
            f"table {name}: {table.dtype}, {table.bytes / 1e6:.2f} MB of "
            f"{table.fp32_bytes / 1e6:.2f}, relative error {table.relative_error:.4f}{why}",
            soft_wrap=True,
        )
    console.print(
        f"{quantisation.metric} {quantisation.quantised:.4f}, in float32 {quantisation.fp32:.4f}"
    )


def promises(manifest: Manifest) -> bool:
    """Whether a recall was promised of any part."""
    parts = manifest.parts.values()
    return any(isinstance(part, GeneratorRecord) and part.index.promise for part in parts)


def tell_promise(name: str, record: PartRecord) -> None:
    """Say how the index of a part was chosen, where a recall was promised."""
    if isinstance(record, GeneratorRecord) and record.index.promise is not None:
        console.print(index_table(name, record.index.promise))


def tell_alias_stays(config: RunConfig) -> None:
    """Say why the tracker's alias was not moved, and how it is."""
    if config.tracking.enabled:
        console.print(
            f"alias {config.tracking.alias}: stays where it is, since {config.model.name} does not "
            f"beat its baselines; `recsys export {shlex.quote(str(config.folder))} --force` moves "
            "it",
            markup=False,
            soft_wrap=True,
        )
