"""Encoders in local folders, in the layout of Hugging Face. Nothing is ever fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from feature_store.durable import read_json
from feature_store.errors import ConfigError, DataError
from feature_store.trees import json_tree
from recsys.text.extras import needed

_KINDS = ("longformer", "roberta", "xlm-roberta", "bert")
_POOLING = "1_Pooling"
_TABLES = "recsys_tables.safetensors"
_UNUSED = ("pooler.", "position_ids")  # of what a folder may lack


@dataclass(frozen=True)
class Pooling:
    """How the vector of a sequence is made of its hidden states: the mean of all tokens or the
    first, and whether it is brought to length 1."""

    mean: bool = False
    unit: bool = False

    @classmethod
    def of(cls, folder: Path) -> Pooling:
        """What a folder of sentence-transformers says of it; others mean the first token.

        Raises DataError for ways of pooling that are neither.
        """
        about = read_json(folder / _POOLING / "config.json")
        chosen = [name for name, on in about.items() if name.startswith("pooling_mode") and on]
        mode = about.get("pooling_mode", chosen)
        chosen = [mode] if isinstance(mode, str) else list(mode)
        names = {name.removeprefix("pooling_mode_") for name in chosen} or {"cls"}
        if not names <= {"cls", "cls_token", "mean", "mean_tokens"} or len(names) > 1:
            raise DataError(
                f"{folder / _POOLING} pools by {' and '.join(sorted(names))}: "
                "encoders of texts pool by the mean of tokens or by the first one"
            )
        return cls("mean" in names.pop(), unit=_has_module(folder, "Normalize"))


def _has_module(folder: Path, name: str) -> bool:
    try:
        modules = json_tree((folder / "modules.json").read_text())
        return any(str(module["type"]).rpartition(".")[2] == name for module in modules)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def open_encoder(folder: Path) -> Any:
    """The encoder of a folder, in float32, without heads: its config.json and weights.

    Raises:
        ConfigError: there is no such folder, or it holds no encoder of a kind that is known.
        DataError: weights are absent, or of other shapes than config.json says.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder / 'config.json'} not found: an encoder is a local folder in the layout of "
            "Hugging Face, with config.json and model.safetensors; nothing is fetched, so write "
            "it where there is a network: `AutoModel.from_pretrained(NAME).save_pretrained(FOLDER)`"
        )
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in _KINDS:
        raise ConfigError(
            f"{folder / 'config.json'} is of model_type {kind!r}; encoders of texts are: "
            f"{', '.join(_KINDS)}"
        )
    transformers = needed("transformers")
    with _quiet(transformers):
        try:
            model, told = transformers.AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                add_pooling_layer=False,
                dtype="float32",
                output_loading_info=True,
            )
        except Exception as error:  # of many kinds, none of which says more than its text
            reason = " ".join(str(error).split())
            raise DataError(f"{folder} cannot be read as an encoder: {reason}") from None
    absent = [key for key in told["missing_keys"] if not any(part in key for part in _UNUSED)]
    if absent or told["mismatched_keys"]:
        keys = sorted(absent) or sorted(str(key) for key in told["mismatched_keys"])
        raise DataError(
            f"{folder} lacks weights that its config.json speaks of, or has them in other shapes: "
            f"{', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        )
    return model


def save_encoder(model: Any, pooling: Pooling, tables: dict[str, Tensor], folder: Path) -> None:
    """Write an encoder into a folder in which the tokenizer lies, with how it pools and the tables
    that are ours: `open_encoder`, `Pooling.of` and `tables_of` read it."""
    model.save_pretrained(folder)
    needed("safetensors.torch").save_file(
        {name: table.detach().cpu().contiguous() for name, table in tables.items()},
        folder / _TABLES,
    )
    (folder / _POOLING).mkdir()
    mode = "mean" if pooling.mean else "cls"
    (folder / _POOLING / "config.json").write_text(json.dumps({"pooling_mode": mode}) + "\n")
    if pooling.unit:
        modules = [{"type": "sentence_transformers.models.Normalize"}]
        (folder / "modules.json").write_text(json.dumps(modules) + "\n")


def tables_of(folder: Path) -> dict[str, Tensor]:
    """Types and item positions that `save_encoder` wrote; none in folders of others.

    Raises DataError where they cannot be read.
    """
    path = Path(folder) / _TABLES
    if not path.exists():
        return {}
    try:
        tables: dict[str, Tensor] = needed("safetensors.torch").load_file(path)
    except Exception as error:  # of many kinds, none of which says more than its text
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    return tables


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bars of progress and no report of heads that are not read."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
