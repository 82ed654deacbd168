"""`about.json`: what a converted program reads and answers, for those who serve it."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

from feature_store.durable import write_text
from recsys.formats.dimensions import shapes_of
from recsys.formats.source import GeneratorSource, RankerSource, Source
from recsys.inputs import Input, to_json
from recsys.lists.merging import MERGES
from recsys.serving.files import digest
from recsys.serving.golden import GOLDEN

ABOUT = "about.json"
_VOCABULARIES = "vocabulary"
_ROWS = "the id at place i of the column `id` has row i + 1; row 0 is an id that is not there"


def write_about(source: Source, folder: Path, files: dict[str, list[str]]) -> None:
    """Write `about.json`, the vocabularies that inputs are encoded with, and the golden requests.

    `files` are those of each format.
    """
    shutil.copyfile(source.part_file(GOLDEN), folder / GOLDEN)
    about: dict[str, Any] = {
        "kind": source.record.kind,
        "part": source.name,
        "run": source.record.about.run,
        "model": source.model,
        "formats": files,
        "inputs": [_told(asked, source) for asked in source.record.inputs],
        "outputs": [{"name": name, "shape": shape} for name, shape in source.outputs.items()],
        "vocabularies": {"rows": _ROWS, "files": _copied(source, folder)},
        "golden": f"{GOLDEN}: requests with raw ids, and what the training stack answered",
    }
    shapes = shapes_of(source)
    if isinstance(source, RankerSource):
        item = source.bundle.schema.item
        about["inputs"].append(
            {
                "name": source.items,
                "type": "int64",
                "shape": shapes[source.items],
                "vocabulary": item,
                "what": "Rows of the items that are scored for each request.",
            }
        )
        about["tasks"] = list(source.record.tasks)
        about["answers"] = "logits of each task: their sigmoids are probabilities"
    elif isinstance(source, GeneratorSource):
        about["answers"] = _answers(source)
    names = sorted(path for path in folder.rglob("*") if path.is_file())
    about["sha256"] = {path.relative_to(folder).as_posix(): digest(path) for path in names}
    write_text(json.dumps(about, indent=2) + "\n", folder / ABOUT)


def _answers(source: GeneratorSource) -> dict[str, Any]:
    record = source.record
    merge = inspect.getdoc(type(MERGES[record.merge])) or ""
    told = {
        "space": record.space,
        "width": record.width,
        "metric": "inner_product",
        "needs_history": record.needs_history,
        "weights": "an interest of weight 0 is not there",
        "merge": {"name": record.merge, "what": " ".join(merge.split())},
    }
    if record.items == "rows":
        told["scores"] = (
            f"`vectors` are the scores of all items: the one at place r is of the item with row r "
            f"of {source.bundle.schema.item}"
        )
    return told


def _told(asked: Input, source: Source) -> dict[str, Any]:
    """What an input is: its tensor, and how it is made of a column."""
    made = to_json(asked)
    what = inspect.getdoc(type(asked)) or ""
    tensor = source.asked[asked.name]
    return {
        "name": asked.name,
        "type": str(tensor.dtype).removeprefix("torch."),
        "shape": shapes_of(source)[asked.name],
        "longest": asked.length,
        "padding": 0 if tensor.dim() == 2 else None,
        "vocabulary": asked.feature,
        "what": " ".join(what.split("\n\n")[0].split()),
        "input": made,
    }


def _copied(source: Source, folder: Path) -> dict[str, str]:
    """The file of each feature's ids, copied into the folder."""
    item = source.bundle.schema.item
    read = {asked.feature for asked in source.record.inputs} | {item}
    manifest = source.bundle.manifest
    known = {**manifest.vocabularies, **source.record.vocabularies}
    (folder / _VOCABULARIES).mkdir()
    files: dict[str, str] = {}
    for feature in sorted(name for name in read if name is not None):
        file = source.bundle.file(known[feature])
        files[feature] = f"{_VOCABULARIES}/{file.name}"
        shutil.copyfile(file, folder / files[feature])
    return files
