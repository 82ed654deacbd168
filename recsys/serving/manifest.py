"""What a bundle says of itself: `manifest.json`, format 4."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)

from feature_store.errors import DataError, command
from feature_store.trees import json_tree
from recsys.embeddings.options import Dtype
from recsys.inputs import Input, from_json, to_json
from recsys.lists.merging import MergeName
from recsys.serving.files import plain_file
from recsys.serving.index.options import IndexConfig
from recsys.serving.index.record import PromiseRecord
from recsys.serving.signature import check_signature
from recsys.text.options import TextConfig

FORMAT: Literal[4] = 4
MANIFEST = "manifest.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _input(value: Any) -> Input:
    try:
        made = from_json(value)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no input that this program knows: {error}") from None
    if not isinstance(made, Input):
        raise ValueError("no input")
    return made


AnyInput = Annotated[
    Input,
    PlainValidator(_input),
    PlainSerializer(to_json),
    WithJsonSchema({"type": "object"}),
]


PartName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class About(_Frozen):
    """The run that a part comes from."""

    run: str = Field(description="Name of the run.")
    model: str = Field(description="Name of the retriever or ranker.")
    config: dict[str, Any] = Field({}, description="The model's own options.")
    run_fingerprint: str = Field("", description="Of all that can change the trained weights.")
    metrics: dict[str, float | None] = Field({}, description="Test figures of the run.")
    training: str | None = Field(
        None, description="Of the training that the weights come from, where the model is trained."
    )


class QuantisedTable(_Frozen):
    """What became of an embedding table."""

    requested: Dtype = Field(description="What was asked for.")
    dtype: Dtype = Field(description="What it is.")
    bytes: int = Field(description="Bytes stored.")
    fp32_bytes: int = Field(description="Bytes of the same table in float32.")
    max_error: float = Field(description="Largest absolute error of a weight.")
    mean_error: float = Field(description="Mean absolute error of a weight.")
    relative_error: float = Field(description="Root mean square error over that of the weights.")
    reason: str | None = Field(description="Why it is not as requested.")


class Quantisation(_Frozen):
    """Tables of fewer bits, and what they cost."""

    metric: str = Field(description="What was measured with both, on a sample.")
    fp32: float = Field(description="The figure with float32 tables.")
    quantised: float = Field(description="The figure with the tables as they are.")
    max_loss: float = Field(description="How much of the figure might be lost.")
    bytes: int = Field(description="Bytes of all tables.")
    fp32_bytes: int = Field(description="Bytes of all tables in float32.")
    tables: dict[str, QuantisedTable] = Field(description="Every table by name.")


class IndexRecord(_Frozen):
    """How the items of a generator are searched."""

    config: IndexConfig = Field(description="The kind of the index and its options.")
    recall_at_100: float = Field(description="Share of the exact 100 best that it finds.")
    promise: PromiseRecord | None = Field(
        None, description="How it was chosen and measured, where a recall was promised."
    )


class FallbackRecord(_Frozen):
    """What a generator answers where it knows nothing of a history: `fallback.parquet`."""

    model: str = Field(description="Name of the retriever whose list it is.")
    days: float | None = Field(
        description="Days before the last training event that are counted; null for all."
    )
    by: str | None = Field(
        None, description="Column of users whose values, the segments, have lists of their own."
    )
    least: int | None = Field(None, description="Events that a segment needs for that.")
    share: float = Field(
        0.0, description="What an event of anybody's counts in the list of a segment."
    )


class _Part(_Frozen):
    about: About = Field(description="The run that it comes from.")
    protocol: str = Field(description="How its log was split.")
    protocol_fingerprint: str = Field(description="Of the split and all that it depends on.")
    train_roles: tuple[str, ...] = Field(description="Roles of the events that it has learned.")
    inputs: tuple[AnyInput, ...] = Field(description="What its program reads of a request.")
    embeddings: dict[str, Any] | None = Field(description="Layout of its embedding tables.")
    quantisation: Quantisation | None = Field(description="Where tables hold fewer bits.")
    vocabularies: dict[str, str] = Field(
        {},
        description="File of a feature's raw ids, where the part has others than the bundle.",
    )


class LineageRecord(_Frozen):
    """The versions of a model that a generator comes after."""

    version: int = Field(ge=1, description="Of the model: 1 is the first.")
    method: str = Field(description="How it reaches the version before.")
    ancestors: tuple[str, ...] = Field(
        description="Spaces of the versions before, the first one first."
    )


class GeneratorRecord(_Part):
    """A part that finds items for users: `user.pt2`, `items.npy`, `item_ids.arrow`, an index."""

    noun: ClassVar[str] = "generator"
    verb: ClassVar[str] = "recsys recommend"

    kind: Literal["generator"] = Field("generator", description="What the part does.")
    needs_history: bool = Field(description="Whether a request must hold a known item.")
    space: str = Field(description="Names the space of its vectors: of the trained weights.")
    width: int = Field(description="Numbers of a vector.")
    candidates: int = Field(description="Items that it can find.")
    items: Literal["vectors", "rows"] = Field(description="What `items.npy` holds of an item.")
    merge: MergeName = Field(description="How what several interests find becomes one list.")
    index: IndexRecord = Field(description="How the items are searched.")
    fallback: FallbackRecord | None = Field(
        None, description="What answers requests without a known item, where it needs one."
    )
    lineage: LineageRecord | None = Field(
        None, description="Where it was made compatible with an older bundle."
    )
    texts: TextConfig | None = Field(
        None,
        description="How texts of items become tokens, of which `item.pt2` makes vectors of new "
        "items as of those it knows.",
    )
    words: Literal["sum", "vectors"] | None = Field(
        None,
        description="What `words.arrow` names: words that its scores are the sum of, or those that "
        "the frozen vectors of its items' texts were made of, as `words.npz` and `described.pt2` "
        "say.",
    )


class RankerRecord(_Part):
    """A part that says how likely a label is: `ranker.pt2`, and why: `reasons.pt2`."""

    noun: ClassVar[str] = "ranker"
    verb: ClassVar[str] = "recsys score"

    kind: Literal["ranker"] = Field("ranker", description="What the part does.")
    tasks: tuple[str, ...] = Field(description="Names of its logits, in their order.")
    calibrated: bool = Field(
        False, description="Whether its logits are calibrated, or freed of drawn negatives."
    )
    explains: bool = Field(
        False, description="Whether `reasons.pt2` says what concepts contribute to a logit."
    )
    priced: bool = Field(False, description="Whether `prices.npy` holds prices of items.")
    costed: bool = Field(False, description="Whether `costs.npy` holds what they cost the seller.")


class GeneratorStage(_Frozen):
    """A generator within a cascade."""

    part: PartName = Field(description="Name of the part.")
    budget: int = Field(ge=1, description="Items that it may find.")


class RankerStage(_Frozen):
    """A ranker within a cascade."""

    part: PartName = Field(description="Name of the part.")
    task: str = Field(description="Which of its logits.")
    keep: int | None = Field(None, ge=1, description="Items that go on; null for all.")
    place_weight: float = Field(
        0.0, ge=0, description="What the order of the candidates counts beside the fine one."
    )


class DiversityRecord(_Frozen):
    """The last step of a cascade: `categories.npy`."""

    category: str = Field(description="Column of the catalogue.")
    weight: float = Field(description="Score that a pair of different categories is worth.")


class CascadeRecord(_Part):
    """A part that narrows down what other parts find: `item_ids.arrow`, `worth.npy`."""

    noun: ClassVar[str] = "cascade"
    verb: ClassVar[str] = "recsys recommend"

    kind: Literal["cascade"] = Field("cascade", description="What the part does.")
    generators: dict[str, GeneratorStage] = Field(description="What finds candidates, by stage.")
    coarse: RankerStage | None = Field(description="What keeps some of them.")
    fine: RankerStage | None = Field(description="What orders those.")
    worth: bool = Field(description="Whether probabilities are multiplied by `worth.npy`.")
    diversity: DiversityRecord | None = Field(description="What makes lists diverse.")
    needs_history: bool = Field(description="Whether users without one get the fallback.")
    candidates: int = Field(description="Items that it can find.")
    fallback: FallbackRecord | None = Field(
        None, description="What answers requests without a known item, where it needs one."
    )


PartRecord = Annotated[GeneratorRecord | RankerRecord | CascadeRecord, Field(discriminator="kind")]


class Manifest(_Frozen):
    """`manifest.json`."""

    format: Literal[4] = Field(FORMAT, description="Of the bundle: what lies where.")
    created: str = Field(description="When it was written, in UTC.")
    vocabularies: dict[str, str] = Field(description="File of the raw ids of a feature.")
    parts: dict[PartName, PartRecord] = Field(description="What it answers with, by name.")
    versions: dict[str, str] = Field(description="Of what wrote it.")
    files: dict[str, str] = Field(description="SHA-256 of every file, by its name.")

    def save(self, folder: Path) -> None:
        """Write `manifest.json`."""
        (folder / MANIFEST).write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, signed_by: Path | None = None) -> Manifest:
        """Read `manifest.json`; `signed_by` is a public key that it must be signed by.

        Raises DataError where it is absent, of another format, not a manifest or not signed so.
        """
        if not (folder / MANIFEST).exists():
            raise DataError(f"{folder} is not a bundle: it has no {MANIFEST}")
        try:
            contents = plain_file(folder, MANIFEST).read_bytes()
            if signed_by is not None:
                check_signature(folder, contents, signed_by)
            tree = json_tree(contents)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} is not a bundle: {error}") from None
        written = tree.get("format") if isinstance(tree, dict) else None
        if written != FORMAT:
            above = (folder.parent, folder.parent.parent)  # of a run, or of its versions
            run = next((path for path in above if (path / "config.toml").exists()), "RUN")
            raise DataError(
                f"{folder} has bundle format {written}, this program reads {FORMAT}: make it anew "
                f"with `{command('recsys', 'export', run)}`"
            )
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise DataError(f"{folder}: {MANIFEST}: {key}: {first['msg']}") from None
