"""Event log -> the examples of a phase."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from feature_store.catalogue import Catalogue
from feature_store.durable import restore, staged
from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import (
    MADE_FROM,
    Before,
    ExamplesSummary,
    grow,
    held_before,
    write_examples,
)
from feature_store.file_names import original_name
from feature_store.progress import stage
from feature_store.splits import make_split
from feature_store.storage import on_disk
from feature_store.trees import json_tree
from feature_store.vocabulary import Vocabulary, vocabulary_file
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.runs.asked_of_log import check_log
from recsys.runs.finished import Run
from recsys.runs.folder import PhaseFolder, RunFolder
from recsys.runs.log import open_log
from recsys.runs.negatives import lists_fingerprint, open_lists
from recsys.runs.parts import rows_of
from recsys.runs.phases import Phase, phases_of, phases_of_run, start_of


def prepare(config: RunConfig, phase: Phase | None = None, *, fresh: bool = False) -> Examples:
    """The examples of a phase, by default of the first, written unless they are there.

    Where the log has grown since they were written, known ids keep their rows: what was trained
    on them stays right. A `fresh` training numbers all ids anew, but for those of the phase that
    it starts from.

    Raises ConfigError for columns that the log does not have, and as
    `recsys.runs.negatives.open_lists` where negatives are drawn from lists.
    """
    phase = phase or phases_of(config.trainer)[0]
    files = RunFolder(config.folder).phase(phase.name)
    log, catalogue = open_log(config)
    check_log(config, log.schema)
    restore(files.examples)
    restore(files.known_ids)
    base = _known_ids(config, phase, files, fresh)
    rows = rows_of(config)
    labels = config.labels if rows.labels else None
    keyed = config.embeddings.keyed
    lists = lists_fingerprint(labels)
    wanted = {
        "log": log.fingerprint,
        "catalogue": catalogue.fingerprint,
        "split": config.split.model_dump(mode="json"),
        "labels": labels.model_dump(mode="json") if labels else None,
        "lists": lists,
        "since": config.trainer.since.isoformat() if config.trainer.since else None,
        **({} if config.trainer.lead == 1 else {"lead": config.trainer.lead}),
        "rows_of": asdict(rows),
        "history_length": getattr(config.model, "max_length", 50),
        **({"keyed": sorted(keyed)} if keyed else {}),
        "base": {table: vocabulary.fingerprint for table, vocabulary in base.items()},
    }
    if not _holds(files.examples, wanted, fresh, base):
        held = _held_before(config, phase, log, catalogue, base)
        if held is None:
            log.check()  # the engine does not look at checksums
        with stage(f"write the examples to {phase.name} on"), Engine(config.engine) as engine:
            grown = None
            if held is None:
                split = make_split(engine, log, config.split, labels, lists)
            else:
                grown = grow(engine, log, catalogue, held, config.split, config.trainer.since)
                split = grown.split
            write_examples(
                engine,
                split,
                catalogue,
                files.examples,
                rows_of=rows,
                history_length=getattr(config.model, "max_length", 50),
                train_roles=phase.examples,
                since=config.trainer.since,
                lead=config.trainer.lead,
                base=base,
                made_from=wanted,
                negatives=labels.negatives if labels else None,
                lists=open_lists(config, split, labels, prepare),
                grown=grown,
                keyed=keyed,
            )
    return Examples(files.examples)


def prepare_together(
    config: RunConfig, phase: Phase, group: Group, *, fresh: bool = False
) -> Examples:
    """`prepare` on several processes: one writes the examples, the others wait and read them."""
    if group.leads:
        prepare(config, phase, fresh=fresh)
    group.barrier()
    return prepare(config, phase)


def keep_ids(files: PhaseFolder, examples: Examples) -> None:
    """Put the ids that a phase's checkpoints are about to know beside them, where they outlive the
    examples.

    Ids that the checkpoints know already stay where they are in other examples: then the
    checkpoints are of another model, which whoever loads them says.
    """
    vocabularies = on_disk(examples.folder) / "vocabulary"
    if _continues(vocabularies, _vocabularies(files.known_ids)):
        with staged(files.known_ids) as aside:
            for path in vocabularies.glob("*.arrow"):
                shutil.copyfile(path, aside / path.name)


def _held_before(
    config: RunConfig,
    phase: Phase,
    log: EventLog,
    catalogue: Catalogue,
    base: Mapping[str, Vocabulary],
) -> Before | None:
    """Examples of the run that this one starts from, of the log as it was, where those of the phase
    can be made of them and of what came since."""
    start = config.trainer.start_from
    if start is None or config.embeddings.keyed:  # users without rows are numbered anew
        return None
    for theirs in phases_of_run(Run(start)):
        folder = RunFolder(start).phase(theirs.name).examples
        known = _vocabularies(folder / "vocabulary")
        if known.keys() != base.keys() or not all(
            base[table].continues(ids) for table, ids in known.items()
        ):
            continue  # other rows
        held = held_before(
            folder,
            log,
            catalogue,
            config.split,
            rows_of(config),
            getattr(config.model, "max_length", 50),
            phase.examples,
            config.trainer.since,
        )
        if held is not None:
            return held
    return None


def _known_ids(
    config: RunConfig, phase: Phase, files: PhaseFolder, fresh: bool
) -> dict[str, Vocabulary]:
    """Ids that keep their rows: those that the checkpoints know, else those of the examples that
    are there, or of the phase before."""
    if not fresh and (known := _vocabularies(files.vocabularies)):
        return known
    start = start_of(config, phase)
    return {} if start is None else _vocabularies(start.vocabularies)


def _vocabularies(folder: Path) -> dict[str, Vocabulary]:
    paths = sorted(folder.glob("*.arrow"))
    return {original_name(path.stem): Vocabulary.load(path) for path in paths}


def _continues(folder: Path, base: Mapping[str, Vocabulary]) -> bool:
    """Whether the vocabularies in a folder begin with those of `base`."""
    paths = {table: folder / vocabulary_file(table) for table in base}
    return all(
        path.exists() and Vocabulary.load(path).continues(base[table])
        for table, path in paths.items()
    )


def _holds(
    folder: Path, wanted: dict[str, Any], fresh: bool, base: Mapping[str, Vocabulary]
) -> bool:
    """Whether the examples in a folder are those that are wanted."""
    try:
        made_from = json_tree((folder / MADE_FROM).read_text())
        ExamplesSummary.load(folder)
    except (OSError, ValueError, DataError):  # not there, or half of it: they are written again
        return False
    if not isinstance(made_from, dict):
        return False
    # whatever they were made from, their own ids are the ones to keep; and a run whose lists they
    # were drawn from may be gone
    left = {"base": not fresh, "lists": wanted["lists"] is None}
    made_from, wanted = (
        {key: value for key, value in tree.items() if not left.get(key)}
        for tree in (made_from, wanted)
    )
    same: bool = made_from == json.loads(json.dumps(wanted))
    return same and _continues(folder / "vocabulary", base)
