"""RunFolder: where everything of a run lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feature_store.file_names import file_name

MAIN_PHASE = "train"
"""The phase whose folders bear no name; those of another phase end in `_NAME`."""


@dataclass(frozen=True)
class PhaseFolder:
    """What one phase of a training reads and leaves."""

    run: Path
    phase: str

    @property
    def examples(self) -> Path:
        """The encoded examples that the phase trains on."""
        return self._folder("examples")

    @property
    def known_ids(self) -> Path:
        """The ids that its checkpoints know, one file a table."""
        return self.checkpoints / "vocabulary"

    @property
    def vocabularies(self) -> Path:
        """Those, or the ones of its examples where nothing was trained."""
        return self.known_ids if self.known_ids.exists() else self.examples / "vocabulary"

    @property
    def checkpoints(self) -> Path:
        """Its checkpoints, one folder a step."""
        return self._folder("checkpoints")

    def _folder(self, kind: str) -> Path:
        return self.run / (kind if self.phase == MAIN_PHASE else f"{kind}_{self.phase}")


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, and the names in it; lower floors know two of them, `bundle` and
    `config.toml`, by which they find a run's bundle.

    Besides what the properties name it holds a folder of examples and one of checkpoints for each
    phase of the training. The folder of a search lies within a `run`, and is held together with it.
    """

    path: Path
    run: Path | None = None

    @property
    def config(self) -> Path:
        """The resolved config, as TOML."""
        return self.path / "config.toml"

    @property
    def lock(self) -> Path:
        """The file that a program holds a lock on while it writes into the folder."""
        return (self.run or self.path) / ".lock"

    @property
    def tracking_id(self) -> Path:
        """The id of the tracker's run that this one is continued as."""
        return self.path / "tracking_id.txt"

    def phase(self, name: str) -> PhaseFolder:
        """What belongs to a phase of the training."""
        return PhaseFolder(self.path, name)

    @property
    def training_marker(self) -> Path:
        """The part of the config that made the checkpoints, beside them."""
        return self.phase(MAIN_PHASE).checkpoints / "training.toml"

    @property
    def checkpoints(self) -> list[Path]:
        """The folders of checkpoints of whatever phases there were."""
        main = self.phase(MAIN_PHASE).checkpoints
        return [path for path in (main, *self.path.glob(f"{main.name}_*")) if path.exists()]

    @property
    def training_record(self) -> Path:
        """Losses and validation figures of every epoch; there once the training is finished."""
        return self.path / "training.json"

    @property
    def calibration(self) -> Path:
        """The curves that calibrate a ranker, and the training that they were fitted to."""
        return self.path / "calibration.json"

    @property
    def metrics(self) -> Path:
        """Figures of every model measured."""
        return self.path / "metrics.json"

    @property
    def seconds(self) -> Path:
        """How long they took; beside the figures, which repeat to the last digit."""
        return self.path / "seconds.json"

    @property
    def lists(self) -> Path:
        """The folder of what every user got, of retrievers."""
        return self.path / "per_user"

    def lists_of(self, retriever: str) -> Path:
        """What every user got of a retriever."""
        return self.lists / f"{file_name(retriever)}.parquet"

    @property
    def predictions(self) -> Path:
        """The folder of what was predicted of every row, of rankers."""
        return self.path / "per_row"

    def predictions_of(self, ranker: str) -> Path:
        """What a ranker predicted of every row."""
        return self.predictions / f"{file_name(ranker)}.parquet"

    @property
    def list_figures(self) -> Path:
        """The folder of the figures of every list that was shown, of rankers."""
        return self.path / "per_list"

    def list_figures_of(self, ranker: str) -> Path:
        """What became of every list that was shown in a ranker's order."""
        return self.list_figures / f"{file_name(ranker)}.parquet"

    @property
    def explanations(self) -> Path:
        """What the concepts of a ranker contribute, over a sample of the test."""
        return self.path / "explanations.json"

    @property
    def report(self) -> Path:
        """The page that shows all of it."""
        return self.path / "report.html"

    @property
    def plots(self) -> Path:
        """The folder of pictures."""
        return self.path / "plots"

    @property
    def plan_plot(self) -> Path:
        """The picture of a plan for many processes."""
        return self.plots / "plan.png"

    @property
    def bundle(self) -> Path:
        """What is served: a link to the version in service."""
        return self.path / "bundle"

    @property
    def bundles(self) -> Path:
        """The folder of its versions."""
        return self.path / "bundles"

    @property
    def steps_done(self) -> Path:
        """Which steps after the training are done, and what they were made from."""
        return self.path / "done.json"

    def search_of(self, retriever: str) -> RunFolder:
        """The folder of a search for the options of a retriever other than the run's own."""
        return RunFolder(self.path / "tuning" / retriever, run=self.path)

    @property
    def study(self) -> Path:
        """The database of a search's trials."""
        return self.path / "tuning.db"

    @property
    def trial(self) -> Path:
        """The folder of checkpoints of the trial that is running."""
        return self.path / "trial"

    @property
    def search_record(self) -> Path:
        """What a search tried and found."""
        return self.path / "tuning.json"

    @property
    def tuned_config(self) -> Path:
        """The config with the best options that a search found."""
        return self.path / "tuned.toml"

    @property
    def race_record(self) -> Path:
        """What became of retrievers that raced."""
        return self.path / "race.json"

    @property
    def chosen_config(self) -> Path:
        """The config of the best of them."""
        return self.path / "chosen.toml"

    @property
    def search_plot(self) -> Path:
        """The picture of a search."""
        return self.plots / "tuning.png"
