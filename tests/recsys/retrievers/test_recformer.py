"""Two stages, phases that go on as they would have, and items that a bundle encodes by itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from conformance import Recorder, batch_from, bundle_of, fresh, request_table, small, trainer_of
from conformance import training as training_options
from feature_store.columns import HISTORY
from feature_store.errors import ConfigError, DataError
from feature_store.event_log import EventLog
from planted import Shape
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.distributed import Group
from recsys.export.item_reader import read_alone, write_item_reader
from recsys.objectives.targets import draw_targets
from recsys.retrievers import recformer
from recsys.retrievers.recformer import FROZEN_ITEMS, PRETRAIN, TRAIN, Recformer, RecformerConfig
from recsys.serving.item_encoder import PROGRAM, TOKENIZER, ItemEncoder
from recsys.serving.program import open_program
from recsys.text.tokens import Tokenizer
from recsys.training import checkpoint
from recsys.training.growth import unwrap
from recsys.training.optimizers import OptimizerConfig
from recsys.training.trainer import Trainer

READER = ReaderConfig(batch_size=32)
TEXT = {"dropout": 0.1}


@pytest.fixture
def examples(planted: dict[Shape, Examples]) -> Examples:
    return planted["sequences"]


def config(**options: Any) -> Any:
    return small("recformer", **{"text": TEXT, "targets_per_user": 1, **options})


def trainer(
    examples: Examples, folder: Path, group: Group, phase: str = TRAIN, **options: Any
) -> Trainer:
    """A training of the small model, in one of its phases."""
    lasting = {name: options.pop(name) for name in ("start_from", "listener") if name in options}
    chosen = options.pop("config", None) or config()
    rates = OptimizerConfig(learning_rate=1e-3)
    return trainer_of(
        chosen,
        examples,
        folder,
        group,
        training_options(optimizer=rates, **options),
        reader=READER,
        phase=phase,
        **lasting,
    )


def model_of(made: Trainer) -> Recformer:
    model = unwrap(made.model)
    assert isinstance(model, Recformer)
    return model


def test_the_loss_is_a_softmax_over_the_catalogue_by_cosine(examples: Examples) -> None:
    model = fresh(
        config(batch_contrast=0.0, targets_per_user=2, negatives=0, text={}), examples
    ).eval()
    model.begin_epoch(1)
    batch = batch_from(model, request_table(model, examples, "train").slice(0, 5))
    history = batch.padded(HISTORY, 9)
    users, places = draw_targets(history, 2, longest=9, seed=0, step=3)
    known = (examples.known_events > 0).nonzero().flatten()
    expected = torch.zeros(())
    for user, place in zip(users.tolist(), places.tolist(), strict=True):
        asked = model.encode({HISTORY: history[user : user + 1, :place]}).vectors.squeeze(1)
        logits = F.cosine_similarity(asked, model.items[known]) / 0.05
        target = (known == history[user, place]).nonzero().flatten()
        expected = expected + F.cross_entropy(logits.unsqueeze(0), target)
    loss = model(batch, 3)
    assert loss.weight == len(users) == 10
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("phase", "half"), [(PRETRAIN, True), (TRAIN, False)])
def test_pre_training_draws_its_targets_from_the_second_half(
    examples: Examples, phase: str, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh(config(), examples)
    model.begin_phase(phase)
    batch = batch_from(model, request_table(model, examples, "train").slice(0, 5))
    drawn = Mock(side_effect=InterruptedError)  # nothing more is asked
    monkeypatch.setattr("recsys.retrievers.recformer.draw_targets", drawn)
    with pytest.raises(InterruptedError):
        model(batch, 3)
    assert drawn.call_args.kwargs["second_half"] is half


def test_items_are_encoded_before_every_epoch_and_frozen_ones_never_again(
    examples: Examples, group: Group, tmp_path: Path
) -> None:
    first = trainer(examples, tmp_path / "train", group, epochs=2, keep=9)
    model, matrices = model_of(first), []
    encode = model.encode_items

    def told() -> None:
        encode()
        matrices.append(model.items.clone())
        fresh_ones = model.tower.of_items(model.sentences, torch.arange(len(model.items)))
        torch.testing.assert_close(model.items, F.normalize(fresh_ones, dim=-1))

    model.encode_items = told  # type: ignore[method-assign]
    first.fit()
    assert len(matrices) == 2 and not torch.equal(*matrices)
    start = checkpoint.best(tmp_path / "train")
    second = trainer(examples, tmp_path / "frozen", group, FROZEN_ITEMS, epochs=2, start_from=start)
    second.fit()
    frozen = model_of(second)
    assert torch.equal(frozen.items, matrices[-1])
    moved = zip(frozen.tower.parameters(), model.tower.parameters(), strict=True)
    assert any(not torch.equal(after, before) for after, before in moved)
    held = fresh(config(), examples)
    checkpoint.load_unsharded(checkpoint.best(tmp_path / "frozen"), held)
    assert torch.equal(held.items, matrices[-1])  # what is kept is the encoder and its items
    held.fill_items()
    torch.testing.assert_close(held.items, matrices[-1])  # and what encodes new ones alike


@pytest.mark.parametrize("phase", [PRETRAIN, TRAIN, FROZEN_ITEMS])
def test_a_phase_that_is_resumed_within_an_epoch_ends_as_one_left_alone(
    phase: str, examples: Examples, group: Group, tmp_path: Path
) -> None:
    options = {"epochs": 2, "checkpoint_every_steps": 3, "keep": 100}
    alone = trainer(examples, tmp_path / "alone", group, phase, **options)
    alone.fit()
    steps = len(alone.reader)
    stopped = checkpoint.folder_of(tmp_path / "alone", 3 * (steps // 3 + 1))
    assert stopped.exists() and steps % 3
    shutil.copytree(stopped, tmp_path / "again" / stopped.name)
    again = trainer(examples, tmp_path / "again", group, phase, **options)
    again.fit(resume=True)
    expected, state = model_of(alone).state_dict(), model_of(again).state_dict()
    assert expected.keys() == state.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name
    assert (phase == PRETRAIN) == any("pretraining" in name for name in state)


def test_new_items_are_encoded_from_files_as_the_known_ones_were(
    examples: Examples, tmp_path: Path
) -> None:
    """Also when the encoder of histories has gone on."""
    model = fresh(config(), examples).eval()
    model.encode_items()
    torch.nn.init.normal_(model.tower.encoder.embedding.weight)
    reader = model.item_reader()
    write_item_reader(reader, tmp_path)
    program, tokenizer = open_program(tmp_path / PROGRAM), Tokenizer.load(tmp_path / TOKENIZER)
    encoder = ItemEncoder(program, tokenizer, read_alone(reader.text))
    texts = examples.item_attributes(model.text.attributes)
    known = examples.candidates()
    vectors = encoder.vectors(texts.take(pa.array(known.numpy())))
    torch.testing.assert_close(vectors, model.items[known], atol=1e-5, rtol=0)
    row = texts.slice(5, 1).to_pylist()[0]
    news = pa.Table.from_pylist([row | {"title": "Item of news"}, row, row], schema=texts.schema)
    other, *same = encoder.vectors(news)
    assert torch.equal(same[0], same[1]) and not torch.allclose(other, same[0], atol=1e-3)
    torch.testing.assert_close(other.norm(), torch.tensor(1.0))
    with pytest.raises(DataError, match=r"items lack .*title.*; they have: sku"):
        encoder.vectors(pa.table({"sku": ["x"]}))


def test_an_encoder_is_the_start_of_another_run(examples: Examples, tmp_path: Path) -> None:
    """With its tokenizer, types and item positions; here of shorter histories."""
    model = fresh(config(width=16), examples).eval()
    model.save_encoder(tmp_path / "encoder")
    folder = {"attributes": ("title",), "encoder": str(tmp_path / "encoder"), "max_tokens": 64}
    other = fresh(RecformerConfig(width=16, max_length=3, text=folder), examples, seed=5).eval()
    assert other.tokenizer.text == model.tokenizer.text
    items = torch.tensor([[4, 9, 2], [7, 0, 0]])
    batch = other.sentences.sequences(items)
    assert torch.equal(other.tower(batch), model.tower(batch))
    (tmp_path / "encoder" / "recsys_tables.safetensors").write_text("none")
    with pytest.raises(DataError, match=r"recsys_tables\.safetensors cannot be read"):
        fresh(RecformerConfig(text=folder), examples)


def test_a_bundle_of_ids_encodes_no_items(
    examples: Examples, planted_log: EventLog, tmp_path: Path
) -> None:
    sasrec = fresh(small("sasrec"), examples).eval()
    recommender = bundle_of(sasrec, examples, planted_log, tmp_path / "bundle")
    with pytest.raises(DataError, match="does not know items by their texts alone"):
        ItemEncoder.open(recommender.bundle)


def test_a_checkpoint_of_another_catalogue_has_its_items_encoded(
    examples: Examples, group: Group, tmp_path: Path
) -> None:
    """Here of one item more than there are now."""
    model = fresh(config(), examples).eval()
    model.encode_items()
    checkpoint.save(tmp_path / "saved", model, None, {}, group)
    other = fresh(config(), examples, seed=1).eval()
    other.items = torch.zeros(len(model.items) - 1, model.items.shape[1])
    checkpoint.load_unsharded(tmp_path / "saved", other)
    torch.testing.assert_close(other.items, model.items[:-1])


def test_weights_of_another_tokenizer_are_refused(
    examples: Examples, group: Group, tmp_path: Path
) -> None:
    model = fresh(config(), examples)
    checkpoint.save(tmp_path / "saved", model, None, {}, group)
    other = fresh(small("recformer", text={**TEXT, "vocabulary": 300}), examples)
    other.tower, other.item_tower = model.tower, model.item_tower  # of the same shapes
    with pytest.raises(DataError, match=r"another tokenizer .* retriever\.text\.tokenizer"):
        checkpoint.load_unsharded(tmp_path / "saved", other)


@pytest.mark.parametrize(
    "options",
    [
        {"contrast": 0.0},
        {"masked": 0.0},
        {"decoder": {}},
        {"contrast": 0.0, "masked": 0.0, "decoder": {"weight": 0.0, "bag_of_words": 1.0}},
        {"contrast": 0.0, "masked": 0.0, "views": {"run": "other"}},
    ],
)
def test_every_loss_of_pretraining_falls(
    options: dict[str, Any],
    examples: Examples,
    group: Group,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    view = torch.randn(examples.num_items, 5)
    view[3] = 0  # the other model has no vector of it
    monkeypatch.setattr(recformer, "item_vectors_of", lambda run, examples: view)
    heard = Recorder()
    made = trainer(
        examples,
        tmp_path,
        group,
        PRETRAIN,
        config=config(pretraining=options),
        epochs=4,
        listener=heard,
    )
    made.fit()
    assert heard.epochs[-1]["loss"] < heard.epochs[0]["loss"]
    model = model_of(made)  # judged by items that it encodes now, not by those of random weights
    items = model.tower.of_items(model.sentences, torch.arange(len(model.items)))
    torch.testing.assert_close(model.items, F.normalize(items, dim=-1))


def test_pretraining_reads_other_runs_behind_its_own(
    planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    examples = planted["sequences"]
    shutil.copytree(examples.folder, tmp_path / "other" / "examples")
    everything = {**TEXT, "attributes": ()}
    chosen = config(pretraining={"runs": [str(tmp_path / "other")]}, text=everything)
    made = trainer(examples, tmp_path / "run", group, PRETRAIN, config=chosen, epochs=1)
    model, items = model_of(made), examples.num_items
    rows = [batch.padded(HISTORY) for batch in made.reader]
    sequences = [row[row != 0] for batch in rows for row in batch]
    assert len(sequences) == 2 * examples.summary.rows["train"]
    ours = sorted(row.tolist() for row in sequences if row[0] < items)
    theirs = sorted((row - items).tolist() for row in sequences if row[0] >= items)
    assert ours == theirs and len(ours) * 2 == len(sequences)
    assert model.pretraining is not None
    both = model.pretraining.sentences.items(torch.tensor([5, 5 + items]))
    assert torch.equal(both.tokens[0], both.tokens[1]) and both.tokens.shape[1] > 3
    made.fit()
    absent = config(pretraining={"runs": [str(tmp_path / "nothing")]})
    with pytest.raises(DataError, match=r"has no examples: run `recsys train"):
        trainer(examples, tmp_path / "x", group, PRETRAIN, config=absent, epochs=1)
    (tmp_path / "nothing").mkdir()
    shutil.copytree(planted["events"].folder, tmp_path / "nothing" / "examples")
    with pytest.raises(ConfigError, match="has rows of events, not of users"):
        trainer(examples, tmp_path / "x", group, PRETRAIN, config=absent, epochs=1)
