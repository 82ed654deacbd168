"""RunConfig: the one typed tree behind the one TOML file."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tomli_w
from pydantic import Field

from feature_store.engine import EngineConfig
from feature_store.labels import LabelConfig
from feature_store.options import Options
from feature_store.protocols import LeaveOneOut, SplitConfig
from feature_store.sources import SourceConfig
from recsys.cascade.options import CascadeConfig
from recsys.compatible.options import CompatibleConfig
from recsys.daily.options import DailyConfig
from recsys.data.options import ReaderConfig
from recsys.embeddings.options import AnyEmbeddings, PerFeature, QuantisationConfig
from recsys.evaluation.options import EvaluationConfig
from recsys.options import ModelConfig
from recsys.rankers import RankerConfig, ranker_class
from recsys.retrievers import NamedRetriever, RetrieverConfig, retriever_class
from recsys.serving.index.options import AnyIndexConfig, ExactConfig
from recsys.serving.options import FallbackConfig
from recsys.training.options import TrainerConfig
from recsys.tuning.options import TuneConfig

if TYPE_CHECKING:  # reading a config imports no more than the options of the models it names
    from feature_store.examples import RowsOf
    from recsys.model import Model


STORE, DATABASE = "store", "mlflow.db"
TAKEN = (STORE, DATABASE, "mlartifacts", "mlruns")
"""What lies beside the runs of a folder: no run has such a name."""


class TrackingConfig(Options):
    """Where runs are recorded. The environment's MLFLOW_TRACKING_URI comes first."""

    enabled: bool = Field(True, description="Whether runs are recorded.")
    uri: str | None = Field(
        None, description="Any MLflow tracking URI; by default a SQLite file below `output`."
    )
    experiment: str = Field("recsys", description="Name of the experiment that they belong to.")
    alias: str = Field("candidate", description="Alias given to the newest registered bundle.")


class CalibrationConfig(Options):
    """How the logits of a trained ranker become probabilities of what happens."""

    kind: Literal["none", "temperature", "isotonic"] = Field(
        "none",
        description="Fitted on validation, and part of test figures and bundle: nothing, a scale "
        "and a shift of the logit, or any rising curve.",
    )
    undo_drawn: bool = Field(
        True,
        description="Where labels.negatives were drawn, bundle and cascades give the probability "
        "that an event is of the item, of all items, and not of the drawn few.",
    )


class ExportConfig(Options):
    """What the bundle holds."""

    index: AnyIndexConfig = Field(ExactConfig(), description="How the nearest items are found.")
    quantisation: QuantisationConfig = QuantisationConfig()
    fallback: FallbackConfig = FallbackConfig()
    golden: int = Field(16, ge=1, description="Requests kept with their answers, and replayed.")
    keep: int = Field(
        3,
        ge=1,
        description="Newest versions of the bundle that stay, for `recsys bundle rollback`.",
    )


class RunConfig(Options):
    """A whole run: raw log -> event log -> examples -> model -> figures -> bundle."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$", description="Names the folder of the run."
    )
    seed: int = Field(0, ge=0, description="Of all that is drawn at random.")
    output: Path = Field(Path("runs"), description="Folder of runs.")
    store: Path | None = Field(
        None, description="Folder of the event log; by default below `output`, one per input."
    )
    data: SourceConfig = Field(description="What is read: one kind of input and its options.")
    quarantine: bool = Field(
        False, description="Set bad rows aside in a Parquet file instead of stopping."
    )
    engine: EngineConfig = EngineConfig()
    split: SplitConfig = Field(
        LeaveOneOut(), description="Who may be seen when: a named protocol and its options."
    )
    labels: LabelConfig = LabelConfig()
    retriever: RetrieverConfig | None = Field(
        None, description="The model, where the run is to find items for users..."
    )
    ranker: RankerConfig | None = Field(
        None, description="... or where it is to say how likely a label is..."
    )
    cascade: CascadeConfig | None = Field(
        None, description="... or where finished runs are to find and to rank items together."
    )
    compatible_with: CompatibleConfig | None = Field(
        None,
        description="The bundle in service, where a new retriever is to ask the index that is "
        "there.",
    )
    baselines: tuple[NamedRetriever, ...] | None = Field(
        None,
        description="Retrievers in closed form, measured beside the model: names, or tables with "
        "their options. By default popularity, of the last days too where the log has times, what "
        "a user had most often where split.seen = 'include', and item_knn and ease where the "
        "catalogue is not too large for them.",
    )
    embeddings: AnyEmbeddings = Field(PerFeature(), description="How ids become vectors.")
    reader: ReaderConfig = ReaderConfig()
    trainer: TrainerConfig = TrainerConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()
    tracking: TrackingConfig = TrackingConfig()
    tune: TuneConfig = TuneConfig()
    daily: DailyConfig = DailyConfig()

    @property
    def model(self) -> ModelConfig:
        """The retriever, the ranker or the cascade."""
        model = self.retriever or self.ranker or self.cascade
        assert model is not None
        return model

    @property
    def model_class(self) -> type[Model]:
        """The class of the retriever, the ranker or the cascade."""
        if self.cascade is not None:
            from recsys.cascade.cascade import Cascade  # needs torch, and configs do not

            return Cascade
        return (retriever_class if self.ranker is None else ranker_class)(self.model.name)

    @property
    def rows_of(self) -> RowsOf:
        """What rows the model is trained on, with the texts that it or a baseline reads."""
        rows = self.model_class.rows_for(self.model)
        baselines = (retriever_class(b.name).rows_for(b) for b in self.baselines or ())
        return replace(rows, texts=rows.texts or any(of.texts for of in baselines))

    @property
    def metric(self) -> str:
        """The validation metric that chooses the best epoch."""
        if self.ranker is None:
            return self.trainer.metric or "NDCG@10"
        return self.trainer.metric or ("MRR" if self.split.candidates == "shown" else "AUC")

    @property
    def folder(self) -> Path:
        """The folder of this run."""
        return self.output / self.name

    @property
    def store_folder(self) -> Path:
        """The folder of the event log."""
        default = self.output / STORE / f"{self.data.source}-{self.data.fingerprint()[:8]}"
        return self.store or default

    @property
    def tracking_uri(self) -> str:
        """Where runs are recorded."""
        uri = os.environ.get("MLFLOW_TRACKING_URI") or self.tracking.uri
        return uri or f"sqlite:///{self.output / DATABASE}"

    @property
    def training(self) -> dict[str, Any]:
        """The part of the tree that can change the trained weights."""
        models = ("retriever", "ranker", "cascade")
        sections = ["seed", "data", "quarantine", "split", "labels", *models]
        upgrade = self.compatible_with
        if upgrade is not None and upgrade.method.learns_with_model:
            sections.append("compatible_with")
        return self.model_dump(
            mode="json",
            exclude_none=True,
            include={*sections, "embeddings", "reader", "trainer"},
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
