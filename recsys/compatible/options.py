"""Options of upgrades: which bundle a new model is to be compatible with, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from feature_store.options import Options
from recsys.options import Chosen, Kind


class FittedConfig(Kind):
    """Of methods that are fitted to two finished models."""

    learns_with_model: ClassVar[bool] = False


class LearntConfig(Kind):
    """Of methods that learn together with the new model."""

    learns_with_model: ClassVar[bool] = True


_HIDDEN = Field(
    512,
    ge=1,
    description="Numbers of the layer between what the user tower says and the old index; no "
    "gradient passes through it into the model.",
)


class FrozenIndexConfig(LearntConfig):
    """Queries that learn to find the old items, which do not move."""

    name: Literal["frozen_index"] = "frozen_index"
    hidden: int = _HIDDEN


class ProcrustesConfig(FittedConfig):
    """A rotation in closed form."""

    name: Literal["procrustes"] = "procrustes"


class AlignerConfig(LearntConfig):
    """A matrix that learns together with the model (BC-Aligner)."""

    name: Literal["aligner"] = "aligner"
    weight: float = Field(
        16.0, ge=0, description="lambda: of the mean squared distance from the old vectors."
    )
    retrieval: float = Field(
        1.0,
        ge=0,
        description="Weight of the model's loss for its queries, mapped and corrected, over the "
        "old index; 0 corrects nothing, as published.",
    )
    hidden: int = _HIDDEN
    users: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Share of a step's users that the old model is asked about, too; 0 pairs items "
        "alone.",
    )


class BasisTransformationConfig(LearntConfig):
    """A wider space that begins with the old one (BT2)."""

    name: Literal["basis_transformation"] = "basis_transformation"
    extra: int | None = Field(
        None,
        ge=1,
        description="a: numbers of a vector beside the model's own. Where there are fewer than the "
        "old index has, the old space borrows some of those; by default as many.",
    )
    hidden: int = _HIDDEN
    scale: float = Field(
        2.0, gt=0, description="C: length of the model's own numbers beside the extra ones."
    )
    retrieval: float = Field(
        1.0, ge=0, description="Weight of the loss of new queries over the old index."
    )
    cosine: float = Field(
        5.0, ge=0, description="Weight of how far an item is from its old vector: 1 - cosine."
    )


class OrthogonalConfig(FittedConfig):
    """A rotation that is trained (OCA), or a map that may bend a little (lambda-orthogonality)."""

    name: Literal["orthogonal"] = "orthogonal"
    relaxed: bool = Field(False, description="Whether it may leave the rotations by `slack`.")
    slack: float = Field(1.0, ge=0, description="lambda: Frobenius norm of W W^T - I left free.")
    sharpness: float = Field(10.0, gt=0, description="alpha: how sharply `slack` ends.")
    backward: float = Field(1.0, ge=0, description="Weight of the distance from the old vectors.")
    onward: float = Field(
        1.0, ge=0, description="Weight of the map of old vectors into the new space."
    )
    contrast: float = Field(
        0.0, ge=0, description="Weight of finding an item's own old vector among others."
    )
    temperature: float = Field(0.05, gt=0, description="Of that.")
    steps: int = Field(500, ge=1, description="Of Adam.")
    learning_rate: float = Field(1e-3, gt=0, description="Of Adam.")


class SimplexConfig(LearntConfig):
    """Corners of a simplex that never move, and contrast with the old vectors."""

    name: Literal["simplex"] = "simplex"
    weight: float = Field(1.0, ge=0, description="Of both beside the model's own loss.")
    share: float = Field(0.1, ge=0, le=1, description="lambda: of the corners in it.")
    sharpness: float = Field(10.0, gt=0, description="mu: what cosines are multiplied by.")


class RelativeConfig(FittedConfig):
    """Cosines to anchors that both models know."""

    name: Literal["relative"] = "relative"
    anchors: int = Field(1024, ge=1, description="k: items that vectors are described by.")
    choice: Literal["random", "farthest", "clusters"] = Field(
        "random", description="Which: any, each far from the others, or one of each cluster."
    )
    centre: bool = Field(True, description="Whether the items' mean is taken from vectors first.")
    whiten: float = Field(
        1.0,
        ge=0,
        le=1,
        description="How far directions in which anchors crowd count less: 0 not at all, as "
        "published.",
    )
    normalise: bool = Field(True, description="Whether descriptions have unit length.")


MethodConfig = Annotated[
    FrozenIndexConfig
    | ProcrustesConfig
    | AlignerConfig
    | BasisTransformationConfig
    | OrthogonalConfig
    | SimplexConfig
    | RelativeConfig,
    Field(discriminator="name"),
    Chosen(),
]


class CompatibleConfig(Options):
    """A bundle in service, whose index the new model's user tower is to ask: nothing is
    re-embedded until you want it."""

    bundle: Path = Field(description="Folder of the bundle in service, or of its run.")
    part: str | None = Field(
        None, description="Its generator, where it has several; by default the one in service."
    )
    method: MethodConfig = Field(description="How, by its name, or as a table with its options.")


def bundle_folder(path: Path) -> Path:
    """The folder of a bundle, given by itself or by its run."""
    return path / "bundle" if (path / "bundle").is_dir() else path
