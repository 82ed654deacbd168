"""Ada-Retrieval: what each part does, by hand, and that rounds are what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from conformance import (
    Recorder,
    answer,
    batch_from,
    fresh,
    learn,
    request_table,
    small,
    trainer_of,
    training,
)
from feature_store.columns import HISTORY, HISTORY_TIME
from feature_store.errors import ConfigError, DataError
from planted import Shape
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.embeddings.options import PerFeature
from recsys.layers.frequency_filter import FrequencyFilter
from recsys.layers.round_adapters import ItemAdapter, UserAdapter
from recsys.lists.merging import IN_ROUNDS
from recsys.retrievers.ada_retrieval import AdaRetrieval, AdaRetrievalConfig
from recsys.retrievers.sasrec import SASRec
from recsys.retrievers.sequential import Moments
from recsys.training import checkpoint


@pytest.fixture
def examples(planted: dict[Shape, Examples]) -> Examples:
    return planted["sequences"]


@pytest.fixture
def base(examples: Examples, group: Group, tmp_path: Path) -> Path:
    """The checkpoint of a trained backbone."""
    learn(small("sasrec"), examples, tmp_path / "base", group, training(epochs=3))
    return checkpoint.best(tmp_path / "base")


def read_base(folder: Path, examples: Examples) -> SASRec:
    model = fresh(small("sasrec"), examples)
    checkpoint.load_unsharded(folder, model)
    model.eval()
    model.prepare(examples.candidates())
    assert isinstance(model, SASRec)
    return model


@pytest.mark.parametrize(("length", "bins"), [(5, 3), (4, 3), (1, 1)])
def test_a_filter_of_ones_changes_nothing(length: int, bins: int) -> None:
    """1 + 0i at every frequency, and an identity behind it: twice the list, normed."""
    part = FrequencyFilter(length, 6, 0.0)
    assert part.weight.shape == (bins, 6, 2)
    with torch.no_grad():
        part.weight.copy_(torch.tensor([1.0, 0.0]).expand_as(part.weight))
        part.dense.weight.copy_(torch.eye(6))
        part.dense.bias.zero_()
    lists = torch.randn(3, length, 6)
    torch.testing.assert_close(part(lists), F.layer_norm(2 * lists, (6,)))


def test_the_filter_is_a_circular_convolution_along_the_list() -> None:
    """Frequencies that are those of a kernel, by the convolution theorem."""
    part = FrequencyFilter(6, 2, 0.0)
    kernel = torch.randn(6, 2)
    with torch.no_grad():
        part.weight.copy_(torch.view_as_real(torch.fft.rfft(kernel, dim=0)))
    lists = torch.randn(1, 6, 2)
    expected = torch.zeros(1, 6, 2)
    for place in range(6):
        for ago in range(6):
            expected[0, place] += kernel[ago] * lists[0, (place - ago) % 6]
    expected = part.norm(part.dense(expected) + lists)
    torch.testing.assert_close(part(lists), expected)


def test_events_look_at_the_lists_row_by_row() -> None:
    part = ItemAdapter(4, 8, 0.0)
    events, lists = torch.randn(2, 3, 8), torch.randn(2, 2, 4, 8)
    found = part(events, lists)
    for user in range(2):
        context = torch.cat([part.filter(lists[user, place, None])[0] for place in range(2)])
        for event in range(3):
            share = (context @ events[user, event] / 8**0.5).softmax(0)
            expected = part.norm(share @ context + events[user, event])
            torch.testing.assert_close(found[user, event], expected)


def test_the_user_reads_earlier_rounds_in_their_order() -> None:
    part = UserAdapter(8, 0.0)
    torch.nn.init.normal_(part.mix[2].weight)
    user, earlier = torch.randn(2, 8), torch.randn(2, 3, 8)
    state = torch.zeros(1, 2, 8)
    for place in range(3):
        _, state = part.memory(earlier[:, place : place + 1], state)
    expected = part.norm(part.mix(torch.cat([user, state[0]], 1)) + user)
    torch.testing.assert_close(part(user, earlier), expected)
    assert not torch.allclose(part(user, earlier), part(user, earlier.flip(1)))


def test_its_first_round_is_the_run_that_it_starts_from(
    examples: Examples, base: Path, group: Group, tmp_path: Path
) -> None:
    """All weights of the backbone are taken, and the adapters are not asked in the first round."""
    recorder = Recorder()
    trainer = trainer_of(
        small("ada_retrieval"),
        examples,
        tmp_path / "ada",
        group,
        training(epochs=1, optimizer={"learning_rate": 1e-12}),
        listener=recorder,
        start_from=base,
    )
    trainer.fit()
    assert recorder.notes[0] == f"starts from {base}, without its optimizer state"
    ada = fresh(small("ada_retrieval"), examples, seed=7).eval()
    checkpoint.load_unsharded(checkpoint.best(tmp_path / "ada"), ada)
    ada.prepare(examples.candidates())
    table = request_table(ada, examples)
    expected, found = answer(read_base(base, examples), table, 10), answer(ada, table, 10)
    assert torch.equal(found.ids[:, :3], expected.ids[:, :3])
    torch.testing.assert_close(found.scores[:, :3], expected.scores[:, :3], atol=1e-5, rtol=0)
    assert not torch.equal(found.ids, expected.ids)  # later rounds are not the backbone's


@pytest.mark.parametrize("shard_above_mb", [64.0, 0.0])
def test_a_frozen_backbone_stays_as_it_was(
    examples: Examples, base: Path, group: Group, tmp_path: Path, shard_above_mb: float
) -> None:
    """To the last bit, also in sharded tables and after going on, while the adapters learn."""
    config = small("ada_retrieval", freeze_backbone=True, dropout=0.5)
    embeddings = PerFeature(shard_above_mb=shard_above_mb)
    recorder = Recorder()
    for epochs in (2, 4):
        trainer_of(
            config,
            examples,
            tmp_path,
            group,
            training(epochs=epochs),
            listener=recorder,
            embeddings=embeddings,
            start_from=base,
        ).fit(resume=True)
    ada, newest = fresh(config, examples, embeddings), checkpoint.newest(tmp_path)
    assert newest is not None
    checkpoint.load_unsharded(newest, ada)
    before, after = read_base(base, examples).state_dict(), ada.backbone.state_dict()
    changed = [
        name
        for (name, old), new in zip(before.items(), after.values(), strict=True)
        if not torch.equal(old, new)
    ]
    assert changed == []
    assert recorder.epochs[-1]["loss"] < recorder.epochs[0]["loss"]
    assert len(recorder.epochs) == 4


def test_a_frozen_backbone_leaves_one_round_nothing_to_learn() -> None:
    with pytest.raises(ValidationError, match="nothing to learn"):
        small("ada_retrieval", freeze_backbone=True, rounds=1)


def test_it_goes_on_from_its_own_kind(examples: Examples, group: Group, tmp_path: Path) -> None:
    learn(small("ada_retrieval"), examples, tmp_path / "first", group, training(epochs=1))
    first, recorder = checkpoint.best(tmp_path / "first"), Recorder()
    trainer = trainer_of(
        small("ada_retrieval"),
        examples,
        tmp_path / "second",
        group,
        training(epochs=1),
        listener=recorder,
        start_from=first,
    )
    trainer.fit()
    assert recorder.notes == [f"starts from {first}"]


def test_another_backbone_is_refused(examples: Examples, base: Path, group: Group) -> None:
    config = small("ada_retrieval", backbone={"width": 8})
    trainer = trainer_of(config, examples, base.parent / "x", group, start_from=base)
    with pytest.raises(DataError, match="width 16, now 8"):
        trainer.fit()


def test_rounds_share_the_list_and_leave_each_other_what_is_left() -> None:
    scores = torch.tensor([[[0.9, 0.8, 0.1, 0.0], [0.7, 0.9, 0.3, 0.2]]])
    sizes = torch.tensor([[1.0, 1.0]])
    values, columns = IN_ROUNDS.top_k(scores, sizes, 4)
    assert columns.tolist() == [[0, 1, 2, 3]]
    torch.testing.assert_close(values, torch.tensor([[0.9, 0.9, 0.3, 0.2]]))
    for k in range(1, 4):  # a shorter list is the beginning of a longer one
        assert torch.equal(IN_ROUNDS.top_k(scores, sizes, k)[1], columns[:, :k])


def test_what_was_picked_is_never_looked_at_again(examples: Examples) -> None:
    """The lists of the rounds, taken from the adapter that reads them, hold no item twice."""
    ada = fresh(small("ada_retrieval", list_size=30, rounds=5), examples).eval()
    assert isinstance(ada, AdaRetrieval)
    looked: list[torch.Tensor] = []
    ada.item_adapter.register_forward_pre_hook(lambda _, inputs: looked.append(inputs[1]))
    with torch.no_grad():
        batch = batch_from(ada, request_table(ada, examples))
        ada.encode(ada.inputs_of(batch))
        lists = looked[-1].flatten(1, 2)  # [B, 4 rounds of 6, D]
        items = ada.backbone.embeddings({"item_id": ada.catalogue})["item_id"]
    places = torch.cdist(lists, items).argmin(2)
    assert all(len(set(row)) == 24 for row in places.tolist())
    assert (batch.padded(HISTORY) != 0).any()


def test_a_list_longer_than_what_has_been_had_is_refused(examples: Examples) -> None:
    with pytest.raises(ConfigError, match=r"list_size = 100 in 5 rounds asks for more than the"):
        fresh(small("ada_retrieval", list_size=100, rounds=5), examples)


def test_histories_of_one_event_teach_nothing(examples: Examples) -> None:
    """A batch of them, as a process may get one, has a loss of nothing and gradients of 0."""
    ada = fresh(small("ada_retrieval"), examples)
    table = request_table(ada, examples, "train").slice(0, 3)
    first = pa.array([[row[0]] for row in table.column(HISTORY).to_pylist()])
    table = table.set_column(0, HISTORY, first.cast(table.column(HISTORY).type))
    loss = ada(batch_from(ada, table), 0)
    assert loss.total == 0 and loss.weight == 0
    loss.total.backward()


def test_its_loss_is_that_of_its_rounds(examples: Examples) -> None:
    """Each from the vectors that serving has, and the round's power of lambda."""
    ada = fresh(
        small("ada_retrieval", backbone={"negatives": 0}, targets_per_user=8, rounds=5), examples
    )
    table = request_table(ada, examples, "train").slice(0, 2)
    history = batch_from(ada, table).padded(HISTORY, 9)
    total = 0.0
    for row in history:
        for end in range(1, int((row != 0).sum())):
            with torch.no_grad():
                vectors = ada.encode({HISTORY: row[None, :end]}).vectors[0]
                scores = vectors @ ada.embed_items(ada.catalogue).T / 0.05
            losses = -scores.log_softmax(1)[:, ada.catalogue == row[end]].squeeze(1)
            total += float((losses * 0.3 ** torch.arange(5)).sum())
    loss = ada(batch_from(ada, table), 0)
    assert loss.weight == (history != 0).sum() - 2
    assert loss.total.item() == pytest.approx(total, rel=1e-4)


def test_over_hstu_a_target_is_asked_for_at_its_own_time(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each event that is read comes the next one, and after the last the target."""
    config = AdaRetrievalConfig(
        backbone=small("hstu"), rounds=2, list_size=4, targets_per_user=3, dropout=0.0
    )
    model = fresh(config, examples).train()
    asked: list[tuple[torch.Tensor, Moments]] = []
    rounds = model.rounds

    def listening(history: torch.Tensor, events: torch.Tensor, moments: Moments, items: Any) -> Any:
        asked.append((history, moments))
        return rounds(history, events, moments, items)

    monkeypatch.setattr(model, "rounds", listening)
    sequences, times = [[4, 9, 2, 7, 5], [3, 1, 6]], [[10, 20, 50, 90, 200], [1000, 1300, 1900]]
    columns = {HISTORY: sequences, HISTORY_TIME: times}
    model(Block.of(pa.table(columns)).to_batch(), 0)
    ((history, moments),) = asked
    assert len(history) == 5  # three targets, and the two that the shorter one has
    for row, read in enumerate(history.tolist()):
        known = len([item for item in read if item])
        whole = sequences.index(next(s for s in sequences if s[:known] == read[:known]))
        assert moments.times[row, :known].tolist() == times[whole][:known]
        assert moments.following[row, :known].tolist() == times[whole][1 : known + 1]
