"""Recformer: a user is the sentence of what he had, an item its own sentence.

P targets, B users, T positions, N item rows, D width.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor

from feature_store.columns import HISTORY
from feature_store.errors import ConfigError, DataError, command
from feature_store.examples import RowsOf, files_of
from feature_store.storage import Place, Remote
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.data.merged import MergedReader
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader
from recsys.embeddings.hashing import salt_of
from recsys.embeddings.options import EmbeddingsConfig
from recsys.inputs import History
from recsys.model import Loss, answering
from recsys.objectives.objective import Drawn, Objective, ObjectiveConfig
from recsys.objectives.targets import draw_targets, targets_of_sequences
from recsys.retrievers.base import ItemReader, Queries, single_interest
from recsys.retrievers.base_vectors import item_vectors_of
from recsys.retrievers.pretraining import Pretraining, PretrainingConfig, View, joined
from recsys.retrievers.text_tower import ItemProgram, TextTower
from recsys.retrievers.trained import TrainedRetriever
from recsys.text.batches import Sentences
from recsys.text.encoder import TextEncoder
from recsys.text.options import TextConfig
from recsys.text.sentences import attributes_of
from recsys.text.tokenise import tokenise, tokenised, tokenizer_of
from recsys.text.tokenised import TokenisedItems
from recsys.text.tokens import Tokenizer
from recsys.text.word_vectors import word_vectors

TRAIN, PRETRAIN, FROZEN_ITEMS = "train", "pretrain", "frozen_items"
_TOKENISED = "tokenised.parquet"


class RecformerConfig(ObjectiveConfig):
    """Li et al., "Text is all you need: learning language representations for sequential
    recommendation", KDD 2023."""

    name: Literal["recformer"] = "recformer"
    text: TextConfig = TextConfig()
    max_length: int = Field(50, ge=1, description="T: events of the history that are read.")
    targets_per_user: int = Field(
        1, ge=1, description="Events of a user that a step predicts, each from what was before it."
    )
    negatives: int = Field(
        0, ge=0, description="Negatives of a target; 0 takes every known item, as is usual here."
    )
    batch_contrast: float = Field(
        1.0,
        ge=0,
        description="Weight of a second loss, of a batch's targets against each other, in which "
        "items learn as well as histories; 0, as published, is for encoders that are trained "
        "already.",
    )
    pretraining: PretrainingConfig = PretrainingConfig()

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "temperature": {"low": 0.02, "high": 0.2, "log": True},
        "batch_contrast": {"low": 0.0, "high": 2.0},
    }


class Recformer(TrainedRetriever):
    """An encoder reads the sentences of a history, newest item first, and those of items alone.

    It has no table of ids: whoever has a text can be found. Items are compared as they were encoded
    once an epoch, before it, and do not learn within it (phase `train`); in the phase
    `frozen_items` they stay as they are, while the encoder goes on learning to ask for them. What
    encoded them is kept beside the encoder, so that new items can be encoded alike. In the phase
    `pretrain` the encoder learns from sentences and histories, see `recsys.retrievers.pretraining`.
    """

    rows_of = RowsOf(texts=True)
    phases = (PRETRAIN, TRAIN, FROZEN_ITEMS)
    Config = RecformerConfig
    config: RecformerConfig
    items: Tensor
    tokenizer_print: Tensor

    def __init__(
        self,
        config: RecformerConfig,
        embeddings: EmbeddingsConfig,
        examples: Examples,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.item = examples.schema.item
        self.inputs = (History(self.item, config.max_length),)
        attributes = attributes_of(examples.schema, config.text.attributes)
        update = {"attributes": attributes, "max_items": config.max_length}
        self.text = config.text.model_copy(update=update)
        table = examples.item_attributes(attributes)
        self.tokenizer = tokenizer_of(table, self.text)
        self.tokenised = items = self._tokens(examples, table)
        self.longest = max(1, int(items.lengths.max(initial=0)))
        self.sentences = self._sentences(items)
        self.tower = TextTower(TextEncoder(self.text, self.tokenizer), config.width)
        self.item_tower = copy.deepcopy(self.tower).requires_grad_(False)
        self.register_buffer("items", torch.zeros(len(items), config.width))
        # what the weights learned is of these tokens
        self.register_buffer("tokenizer_print", _print_of(self.tokenizer))
        self.made = ("items",)
        self.register_load_state_dict_post_hook(_check_loaded)
        targets = partial(targets_of_sequences, examples, config.max_length + 1)
        self.objective = Objective(config, examples, seed, targets)
        in_batch = {"negative_sampling": "in_batch", "negatives": 256, "hard_negatives": 0}
        self.next_items = Objective(config.model_copy(update=in_batch), examples, seed)
        self.phase = TRAIN
        self.pretraining: Pretraining | None = None

    def _tokens(self, examples: Examples, table: pa.Table) -> TokenisedItems:
        """Of the texts of a table, kept beside the examples where these lie on this disk."""
        if isinstance(examples.folder, Remote):
            return tokenise(table, self.tokenizer, self.text)
        return tokenised(examples.folder / _TOKENISED, table, self.tokenizer, self.text)

    def _sentences(self, items: TokenisedItems) -> Sentences:
        return Sentences(items, max_tokens=self.text.max_tokens, max_items=self.text.max_items)

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """User vectors [B, 1, D]."""
        history, length = inputs[HISTORY], None
        if torch.compiler.is_exporting():  # no shape may depend on values
            length = self._most_tokens(history.shape[1])
        vectors = self.tower(self.sentences.sequences(history, length))
        return single_interest(self.objective.unit(vectors))

    def _most_tokens(self, events: int) -> int:
        """Of sequences of so many events; two more, [CLS] and perhaps the separator."""
        if 2 + self.config.max_length * self.longest > self.text.max_tokens:
            return self.text.max_tokens
        return 2 + events * self.longest

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, D], as they were encoded last."""
        return self.items[rows]

    @torch.no_grad()
    def encode_items(self) -> None:
        """Encode all items by the weights as they are."""
        self.item_tower.load_state_dict(self.tower.state_dict())
        self.fill_items()

    @torch.no_grad()
    def fill_items(self) -> None:
        """Encode all items by what encoded them last."""
        rows = torch.arange(len(self.items), device=self.items.device)
        self.items.copy_(self.objective.unit(self.item_tower.of_items(self.sentences, rows)))

    def begin_phase(self, phase: str) -> None:
        """Which way of learning it is; weights that no training has touched yet begin with what
        the words of the catalogue tell."""
        self.phase = phase
        if self.text.encoder is None:
            encoder = self.tower.encoder
            encoder.begin_with(word_vectors(self.tokenised, encoder.width))

    def begin_epoch(self, epoch: int, goes_on: bool = False) -> None:
        """Encode all items, unless they are frozen or those of an epoch that goes on."""
        if (self.phase == TRAIN and not goes_on) or not self.items.any():
            self.encode_items()

    def end_epoch(self, epoch: int) -> None:
        """What was pre-trained is judged by items that it encodes."""
        if self.phase == PRETRAIN:
            self.encode_items()

    def training_reader(
        self, examples: Examples, config: ReaderConfig, *, seed: int, rank: int, world: int
    ) -> Reader:
        """Sequences of users; in pre-training also those of other runs.

        Raises DataError where such a run has no texts, or was not prepared.
        """
        if self.phase != PRETRAIN:
            return super().training_reader(examples, config, seed=seed, rank=rank, world=world)
        options = self.config.pretraining
        view = None
        if options.views is not None:
            view = View(item_vectors_of(options.views.run, examples), options.views)
        others = [self._other(run) for run in options.runs]
        own = self._tokens(examples, examples.item_attributes(self.text.attributes))
        everything = [own, *(items for _, items in others)]
        sentences = self._sentences(joined(everything))
        self.pretraining = Pretraining(
            options, self.tower, self.tokenizer, self.config.width, sentences, self.seed, view
        )
        shifts: dict[Place, int] = {}
        start = 0
        for folder, items in zip(
            [examples.folder, *(folder for folder, _ in others)], everything, strict=True
        ):
            shifts[folder / "train.parquet"] = start
            start += len(items)
        reader = MergedReader(
            [file for folder in shifts for file in files_of(folder.parent, "train")],
            config,
            columns=[HISTORY],
            max_lengths={HISTORY: self.config.max_length + 1},
            bucket_by=HISTORY,
            seed=seed,
            rank=rank,
            world=world,
        )
        reader.shifts = shifts
        return reader

    def _other(self, run: Path) -> tuple[Place, TokenisedItems]:
        """The examples of another run, and its items by this one's tokenizer."""
        folder = run / "examples"
        if not (folder / "examples.json").exists():
            raise DataError(
                f"retriever.pretraining.runs: {run} has no examples: run "
                f"`{command('recsys', 'train', run)}`"
            )
        examples = Examples(folder)
        if examples.summary.rows_of.per != "user":
            raise ConfigError(
                f"retriever.pretraining.runs: {run} has rows of events, not of users: choose a run "
                "of a recformer"
            )
        text = self.text.model_copy(update={"attributes": attributes_of(examples.schema)})
        table = examples.item_attributes(text.attributes)
        return folder, tokenise(table, self.tokenizer, text)

    def forward(self, batch: Batch, step: int) -> Loss:
        """The loss of each user's targets, from what was before them."""
        longest = self.config.max_length + 1
        history = batch.padded(HISTORY, longest)
        count = self.config.targets_per_user
        users, places = draw_targets(
            history,
            count,
            longest=longest,
            seed=self.seed,
            step=step,
            second_half=self.phase == PRETRAIN,  # which have more before them to be told from
        )
        before = torch.arange(history.shape[1], device=history.device) < places.unsqueeze(1)
        read, targets = history[users] * before, history[users, places]
        if self.pretraining is not None:
            return self._pretrained(self.pretraining, read, targets, step)
        queries = self.tower(self.sentences.sequences(read))
        drawn = self.objective.draw(targets, step, lambda: self._hardest(read, history[users]))
        losses = self.objective(queries, self.items[targets], self.items[drawn.ids], targets, drawn)
        if self.config.batch_contrast and self.phase == TRAIN:
            drawn = self.next_items.draw(targets, step)
            vectors = self.tower(self.sentences.items(drawn.ids))
            among = self._contrast(queries, vectors, targets, drawn)
            losses = losses + self.config.batch_contrast * among
        return Loss(losses.sum(), losses.new_tensor(len(losses)))

    def _pretrained(
        self, pretraining: Pretraining, read: Tensor, targets: Tensor, step: int
    ) -> Loss:
        """Losses as of `PretrainingConfig`, summed over targets."""
        histories = pretraining.sentences.sequences(read)
        drawn = self.next_items.draw(targets, step)
        items = pretraining.sentences.items(drawn.ids)
        total = pretraining(self.tower, histories, items, drawn.ids, step) * len(targets)
        if pretraining.config.contrast:
            queries, vectors = self.tower(histories), self.tower(items)
            losses = self._contrast(queries, vectors, targets, drawn)
            total = total + pretraining.config.contrast * losses.sum()
        return Loss(total, total.new_tensor(len(targets)))

    def _contrast(self, queries: Tensor, items: Tensor, targets: Tensor, drawn: Drawn) -> Tensor:
        """Losses [P] of targets against each other; `items` [n, D] are of the rows drawn."""
        positives = items[torch.searchsorted(drawn.ids, targets)]
        return self.next_items(queries, positives, items, targets, drawn)

    def _hardest(self, read: Tensor, seen: Tensor) -> Tensor:
        rows = self.objective.sampler.everything()
        with answering(self):
            users = self.encode({HISTORY: read}).vectors
            return self.objective.hardest(users, seen, self.items[rows], rows)

    def save_encoder(self, folder: Path) -> None:
        """Write what it has learned of texts into a folder that `text.encoder` of another run may
        name, of any catalogue; a linear map to another width is not in it."""
        self.tower.encoder.save(folder, self.tokenizer)

    def item_reader(self) -> ItemReader:
        """What encodes new items as the known ones were."""
        return ItemReader(ItemProgram(self.item_tower), self.tokenizer, self.text)


def _print_of(tokenizer: Tokenizer) -> Tensor:
    """64 bits over all of a tokenizer."""
    return torch.tensor(salt_of("tokenizer", tokenizer.text))


def _check_loaded(model: Recformer, keys: object) -> None:
    """What was loaded is of this tokenizer; items that it does not hold are encoded."""
    if not torch.equal(model.tokenizer_print.cpu(), _print_of(model.tokenizer)):
        raise DataError(
            "the weights were learned with another tokenizer than that of the catalogue as it is: "
            "set retriever.text.tokenizer to that of their bundle, parts/generator/tokenizer"
        )
    if not model.items.any():
        model.fill_items()
