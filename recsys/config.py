"""RunConfig: the one typed tree behind the one TOML file."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import os
import tomllib
import typing
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from feature_store.errors import ConfigError
from feature_store.examples import Shape
from feature_store.labels import LabelConfig
from feature_store.sources import SourceConfig
from feature_store.splits import LeaveOneOut, SplitConfig
from recsys.embeddings.layout import EmbeddingsConfig
from recsys.embeddings.quantisation import QuantisationConfig
from recsys.evaluation.evaluator import EvaluationConfig
from recsys.evaluation.predictions import FIGURES
from recsys.rankers import RANKERS, AnyRankerConfig
from recsys.rankers.base import RankerConfig
from recsys.reader import ReaderConfig
from recsys.retrievers import BY_NAME, RETRIEVERS, AnyRetrieverConfig
from recsys.retrievers.base import (
    FittedRetriever,
    RetrieverConfig,
    ScoringRetriever,
    TrainedRetriever,
)
from recsys.serving.index import IndexConfig
from recsys.training.trainer import TrainerConfig
from recsys.tuning import TuneConfig


class TrackingConfig(BaseModel):
    """Where runs are recorded. The environment's MLFLOW_TRACKING_URI comes first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    uri: str | None = Field(
        None, description="Any MLflow tracking URI; by default a SQLite file below `output`."
    )
    experiment: str = "recsys"
    alias: str = Field("candidate", description="Alias given to the newest registered bundle.")


class ExportConfig(BaseModel):
    """What the bundle holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: IndexConfig = IndexConfig()
    quantisation: QuantisationConfig = QuantisationConfig()
    golden: int = Field(16, ge=1, description="Requests kept with their answers, and replayed.")


def _named(baseline: Any) -> Any:
    return {"name": baseline} if isinstance(baseline, str) else baseline


class RunConfig(BaseModel):
    """A whole run: raw log -> event log -> examples -> model -> figures -> bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="Names the folder of the run.")
    seed: int = Field(0, ge=0)
    output: Path = Field(Path("runs"), description="Folder of runs.")
    store: Path | None = Field(
        None, description="Folder of the event log; by default below `output`, one per input."
    )
    data: SourceConfig
    quarantine: bool = Field(
        False, description="Set bad rows aside in a Parquet file instead of stopping."
    )
    split: SplitConfig = LeaveOneOut()
    labels: LabelConfig = LabelConfig()
    retriever: AnyRetrieverConfig | None = Field(
        None, description="The model, where the run is to find items for users..."
    )
    ranker: AnyRankerConfig | None = Field(
        None, description="... or where it is to say how likely a label is."
    )
    baselines: tuple[Annotated[AnyRetrieverConfig, BeforeValidator(_named)], ...] | None = Field(
        None,
        description="Retrievers in closed form, measured beside the model: names, or tables with "
        "their options. By default popularity and, where the log has times, recent popularity.",
    )
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    reader: ReaderConfig = ReaderConfig()
    trainer: TrainerConfig = TrainerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()
    tracking: TrackingConfig = TrackingConfig()
    tune: TuneConfig = TuneConfig()

    @property
    def model(self) -> RetrieverConfig | RankerConfig:
        """The retriever or the ranker."""
        found = self.retriever or self.ranker
        assert found is not None
        return found

    @property
    def shape(self) -> Shape:
        """The shape of the examples that the model is trained on."""
        kinds: dict[type, Any] = {**RETRIEVERS, **RANKERS}
        return kinds[type(self.model)].shape

    @property
    def metric(self) -> str:
        """The validation metric that chooses the best epoch."""
        return self.trainer.metric or ("NDCG@10" if self.ranker is None else "AUC")

    @property
    def folder(self) -> Path:
        """The folder of this run."""
        return self.output / self.name

    @property
    def store_folder(self) -> Path:
        """The folder of the event log."""
        default = self.output / "store" / f"{self.data.source}-{self.data.fingerprint()[:8]}"
        return self.store or default

    @property
    def tracking_uri(self) -> str:
        """Where runs are recorded."""
        found = os.environ.get("MLFLOW_TRACKING_URI") or self.tracking.uri
        return found or f"sqlite:///{self.output / 'mlflow.db'}"

    @property
    def training(self) -> dict[str, Any]:
        """The part of the tree that can change the trained weights."""
        parts = ("seed", "data", "quarantine", "split", "labels", "retriever", "ranker")
        return self.model_dump(
            mode="json",
            exclude_none=True,
            include={*parts, "embeddings", "reader", "trainer"},
        )

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits over all that can change the trained weights."""
        text = json.dumps(self.training, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The tree as JSON types, without what is not set."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_toml(self) -> str:
        """The resolved tree as TOML."""
        return tomli_w.dumps(self.to_dict())


def load_config(path: Path | str, overrides: list[str] | None = None) -> RunConfig:
    """Read a TOML file and apply overrides such as `trainer.epochs=3`.

    Raises:
        ConfigError: names the file or key at fault and what it allows.
    """
    try:
        tree = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return parse_config(tree, overrides, where=str(path))


def parse_config(
    tree: dict[str, Any], overrides: list[str] | None = None, *, where: str = "config"
) -> RunConfig:
    """A RunConfig from a tree of plain values. Raises ConfigError as `load_config`."""
    tree = copy.deepcopy(tree)  # overrides are this run's, not the caller's
    for override in overrides or []:
        _override(tree, override)
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e, where) for e in error.errors())) from None
    _check(config, where)
    return config


def _check(config: RunConfig, where: str) -> None:
    """What one section asks of another."""
    if (config.retriever is None) == (config.ranker is None):
        raise ConfigError(
            f"{where}: give either [retriever], one of {', '.join(BY_NAME)}, or [ranker], one of "
            f"{', '.join(kind.model_fields['name'].default for kind in RANKERS)}"
        )
    if config.ranker is not None:
        _check_ranker(config, where)
    else:
        _check_retriever(config, where)


def _check_ranker(config: RunConfig, where: str) -> None:
    if config.baselines:
        raise ConfigError(f"{where}: baselines are retrievers: a ranker has none")
    if config.metric not in FIGURES:
        raise ConfigError(
            f"{where}: trainer.metric: {config.metric!r} is not measured of rankers; "
            f"choose one of: {', '.join(FIGURES)}"
        )


def _check_retriever(config: RunConfig, where: str) -> None:
    kinds = {name: RETRIEVERS[kind] for name, kind in BY_NAME.items()}
    fitted = [name for name, kind in kinds.items() if issubclass(kind, FittedRetriever)]
    for baseline in config.baselines or ():
        name = baseline.name
        if name not in fitted:
            raise ConfigError(
                f"{where}: baselines: {name!r} learns by gradient: make it the retriever of a run "
                f"of its own; known: {', '.join(fitted)}"
            )
    chosen = kinds[config.model.name]
    if issubclass(chosen, ScoringRetriever) and config.export.index.kind == "faiss":
        raise ConfigError(
            f"{where}: export.index.kind: {config.model.name} gives every item a score and has "
            "no vectors that FAISS could search: choose 'exact'"
        )
    if getattr(config.model, "freeze_backbone", False) and config.trainer.start_from is None:
        raise ConfigError(
            f"{where}: retriever.freeze_backbone: the backbone would never learn anything: set "
            "trainer.start_from to a run of it"
        )
    nested = getattr(config.model, "matryoshka", ())
    if config.export.index.kind == "prefix" and config.export.index.prefix not in nested:
        raise ConfigError(
            f"{where}: export.index.prefix: {config.export.index.prefix} is not a width that "
            f"retriever.matryoshka trains; choose one of: {', '.join(map(str, nested)) or 'none'}"
        )
    metric, known = config.metric, config.evaluation.figures
    if metric not in known and issubclass(chosen, TrainedRetriever):
        raise ConfigError(
            f"{where}: trainer.metric: {metric!r} is not measured with these evaluation.ks; "
            f"choose one of: {', '.join(known)}"
        )


def _override(tree: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"{override!r} is not an override: write section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, last = key.strip().split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{override!r}: {section} is a value, not a section")
    tree[last] = value


def _explain(error: Any, where: str) -> str:
    """One pydantic error in one line that names the key and the way out."""
    model: Any = RunConfig
    path: list[str] = []
    for part in error["loc"]:
        arms = model if isinstance(model, dict) else {}
        if isinstance(part, str) and part in arms:  # the chosen arm of a union, not a key
            model = arms[part]
            continue
        path.append(str(part))
        model = _child(model, part)
    key = ".".join(path) or "the file"
    if error["type"] == "extra_forbidden":
        parent: Any = RunConfig
        for part in error["loc"][:-1]:
            arms = parent if isinstance(parent, dict) else {}
            parent = arms.get(part) or _child(parent, part) or parent
        known = sorted(getattr(parent, "model_fields", {}))
        close = difflib.get_close_matches(path[-1], known, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"{where}: unknown key {key}{hint}; known: {', '.join(known)}"
    if error["type"] == "union_tag_not_found" and isinstance(model, dict):
        tag = error["ctx"]["discriminator"].strip("'")
        return f"{where}: {key}.{tag} is missing; choose one of: {', '.join(sorted(model))}"
    got = "" if error["type"] == "missing" else f", got {error['input']!r}"
    return f"{where}: {key}: {error['msg']}{got}"


def _child(model: Any, part: Any) -> Any:
    """The annotation below a key: a model, a dict of union arms, or None."""
    field = getattr(model, "model_fields", {}).get(part)
    return None if field is None else _resolve(field.annotation)


def _resolve(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found: dict[str, Any] = {}
    for arm in typing.get_args(annotation):
        resolved = _resolve(arm)
        if isinstance(resolved, dict):
            found |= resolved
        elif resolved is not None:
            for tag in ("name", "source", "protocol"):
                if tag in resolved.model_fields:
                    found[resolved.model_fields[tag].default] = resolved
                    found |= {
                        v: resolved for v in typing.get_args(resolved.model_fields[tag].annotation)
                    }
    return found or None
