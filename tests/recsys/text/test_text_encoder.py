"""Encoders in local folders answer as transformers does; a small one of our own trains."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from feature_store.errors import ConfigError, DataError
from hf_layout import WORDS, write_encoder
from recsys.text.batches import Sentences, TextBatch
from recsys.text.checkpoints import Pooling
from recsys.text.encoder import TextEncoder
from recsys.text.options import TextConfig
from recsys.text.tokenised import VALUE, TokenisedItems
from recsys.text.tokens import Tokenizer


def batch_of(tokenizer: Tokenizer, lengths: list[int]) -> TextBatch:
    """Sequences of random tokens."""
    torch.manual_seed(1)
    width = max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    tokens = torch.randint(5, len(tokenizer), mask.shape)
    tokens[:, 0] = tokenizer.cls
    types = torch.randint(1, 3, mask.shape)
    places = torch.randint(1, 4, mask.shape)
    types[:, 0] = places[:, 0] = 0
    tokens, types = tokens.where(mask, tokenizer.pad), types.where(mask, 3)
    return TextBatch(tokens, types, places.where(mask, 0), mask)


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", ["longformer", "roberta", "bert"])
def test_a_folder_of_hugging_face_answers_as_transformers_does(
    kind: str, head: bool, tmp_path: Path
) -> None:
    own = write_encoder(tmp_path / kind, kind, head=head)
    tokenizer = Tokenizer.load(tmp_path / kind)
    config = TextConfig(encoder=tmp_path / kind, max_tokens=30)
    encoder = TextEncoder(config, tokenizer).eval()
    batch = batch_of(tokenizer, [21, 5, 1])
    asked = {"input_ids": batch.tokens, "attention_mask": batch.mask.long()}
    if kind == "longformer":
        asked["global_attention_mask"] = torch.zeros_like(batch.tokens)
        asked["global_attention_mask"][:, 0] = 1
    with torch.no_grad():
        expected = own(**asked).last_hidden_state
        hidden = encoder(batch)
    torch.testing.assert_close(hidden[batch.mask], expected[batch.mask], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.vectors(batch), expected[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("bert", [[0, 1, 2, 3], [0, 1, 1, 1]]),
        ("roberta", [[2, 3, 4, 5], [2, 3, 1, 1]]),  # the token of padding is 1, and its place too
        ("longformer", [[2, 3, 4, 5], [2, 3, 1, 1]]),
    ],
)
def test_positions_count_as_each_kind_has_learned_them(
    kind: str, expected: list[list[int]], tmp_path: Path
) -> None:
    write_encoder(tmp_path, kind)
    tokenizer = Tokenizer.load(tmp_path)
    encoder = TextEncoder(TextConfig(encoder=tmp_path, max_tokens=30), tokenizer)
    assert encoder.position_ids(batch_of(tokenizer, [4, 2])).tolist() == expected


def test_a_small_encoder_sees_what_each_token_is() -> None:
    tokenizer = Tokenizer.train(WORDS, 300)
    config = TextConfig(max_tokens=30, width=16, window=4, dropout=0)
    encoder = TextEncoder(config, tokenizer)
    for table in (encoder.types, encoder.places):
        nn.init.normal_(table.weight)  # they begin at zero
    batch = batch_of(tokenizer, [20, 7])
    vectors = encoder.vectors(batch)
    assert vectors.shape == (2, encoder.width) == (2, 16)
    changes = {"tokens": 1 + batch.tokens, "types": 3 - batch.types}
    changes["item_positions"] = 1 + batch.item_positions
    for part, values in changes.items():
        changed = replace(batch, **{part: torch.where(batch.types == 1, values, vars(batch)[part])})
        assert not torch.allclose(encoder.vectors(changed), vectors), part
    blind = TextEncoder(
        config.model_copy(update={"token_types": False, "item_positions": False}), tokenizer
    )
    assert torch.equal(
        blind.vectors(batch),
        blind.vectors(replace(batch, types=batch.types * 0, item_positions=batch.types * 0)),
    )
    assert blind.types is blind.places is None


@pytest.mark.parametrize("kind", [None, "longformer", "roberta", "bert"])
def test_every_weight_learns_and_what_is_known_of_places_begins_at_zero(
    kind: str | None, tmp_path: Path
) -> None:
    if kind is not None:
        write_encoder(tmp_path, kind)
    tokenizer = Tokenizer.train(WORDS, 300)
    folder = None if kind is None else tmp_path
    config = TextConfig(encoder=folder, max_tokens=30, width=16, window=4, dropout=0)
    encoder = TextEncoder(config, tokenizer)
    for table in (encoder.types, encoder.places):
        assert table is not None and not table.weight.any()
    encoder.vectors(batch_of(tokenizer, [20, 7])).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_untrained_vectors_differ_as_their_words_do() -> None:
    tokenizer = Tokenizer.train(WORDS, 300)
    config = TextConfig(max_tokens=30, width=64, dropout=0)
    tokens = torch.randint(5, len(tokenizer), (60, 9), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = tokenizer.cls
    tokens[1, 1:] = tokens[0, 1:].flip(0)  # the same words, elsewhere
    places = torch.ones_like(tokens)
    batch = TextBatch(tokens, places * VALUE, places, places > 0)

    with torch.no_grad():
        vectors = nn.functional.normalize(TextEncoder(config, tokenizer).eval().vectors(batch))
    cosines = vectors[0] @ vectors.T
    assert cosines[1] == pytest.approx(1)
    assert cosines[2:].mean() < 0.2  # 0 in expectation, but for [CLS], which all of them have
    assert cosines[2:].max() < 0.6


def test_pooling_may_be_other_than_a_folder_says(tmp_path: Path) -> None:
    write_encoder(tmp_path, "bert")  # which says nothing: the first token
    tokenizer = Tokenizer.load(tmp_path)
    config = TextConfig(encoder=tmp_path, max_tokens=30, pooling="mean")
    encoder, batch = TextEncoder(config, tokenizer).eval(), batch_of(tokenizer, [9, 4])
    hidden = encoder(batch)
    means = torch.stack([hidden[0, :9].mean(0), hidden[1, :4].mean(0)])
    torch.testing.assert_close(encoder.vectors(batch), means)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a connection or asks for an address fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", ["longformer", "roberta", "bert"])
def test_nothing_asks_the_network(kind: str, tmp_path: Path) -> None:
    write_encoder(tmp_path, kind)
    tokenizer = Tokenizer.load(tmp_path)
    encoder = TextEncoder(TextConfig(encoder=tmp_path, max_tokens=30), tokenizer)
    assert encoder.vectors(batch_of(tokenizer, [3])).shape == (1, 16)
    with pytest.raises(ConfigError, match=r"allenai/longformer-base-4096/config.json not found: "):
        TextEncoder(TextConfig(encoder=Path("allenai/longformer-base-4096")), tokenizer)


def test_what_is_no_encoder_is_refused_in_one_line_with_the_way_out(tmp_path: Path) -> None:
    write_encoder(tmp_path / "bert", "bert")
    tokenizer = Tokenizer.load(tmp_path / "bert")

    def refused(kind: type[Exception], text: str, **options: Any) -> None:
        config = TextConfig(**{"encoder": tmp_path / "bert", "max_tokens": 30, **options})
        with pytest.raises(kind, match=text) as raised:
            TextEncoder(config, tokenizer)
        assert "\n" not in str(raised.value)

    refused(ConfigError, "not found: an encoder is a local folder", encoder=tmp_path / "none")
    refused(ConfigError, "max_tokens is 41; the encoder .* reads 40 at most", max_tokens=41)
    more = TextConfig(encoder=tmp_path / "bert", max_tokens=30)
    with pytest.raises(ConfigError, match=r"tokenizer has 320 tokens, the encoder of .*bert \d+:"):
        TextEncoder(more, Tokenizer.train([f"word{i} other{i}" for i in range(90)] * 2, 320))
    about = json.loads((tmp_path / "bert" / "config.json").read_text())

    def rewritten(**changes: Any) -> None:
        (tmp_path / "bert" / "config.json").write_text(json.dumps({**about, **changes}))

    rewritten(model_type="gpt2")
    refused(ConfigError, "model_type 'gpt2'; encoders of texts are: longformer, roberta, ")
    rewritten(num_hidden_layers=3)
    refused(DataError, "lacks weights that its config.json speaks of.*: encoder.layer.2")
    rewritten(intermediate_size=8)
    refused(DataError, "bert (cannot be read as an encoder|lacks weights)")
    rewritten()
    weights = tmp_path / "bert" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    refused(DataError, "cannot be read as an encoder: ")
    weights.unlink()
    refused(DataError, "cannot be read as an encoder: ")


def test_the_pooling_of_a_folder_is_read(tmp_path: Path) -> None:
    def pooling(about: dict[str, Any], modules: list[str]) -> Pooling:
        (tmp_path / "1_Pooling").mkdir(exist_ok=True)
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(about))
        types = [{"type": f"sentence_transformers.models.{name}"} for name in modules]
        (tmp_path / "modules.json").write_text(json.dumps(types))
        return Pooling.of(tmp_path)

    assert Pooling.of(tmp_path) == Pooling(mean=False, unit=False)
    mean = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    assert pooling(mean, ["Transformer", "Pooling", "Normalize"]) == Pooling(True, True)
    assert pooling({"pooling_mode": "mean"}, ["Transformer", "Pooling"]) == Pooling(True, False)
    assert pooling({"pooling_mode_cls_token": True}, []) == Pooling(False, False)
    with pytest.raises(DataError, match="pools by max_tokens: encoders of texts pool by the mean"):
        pooling({"pooling_mode_max_tokens": True}, [])
    with pytest.raises(DataError, match="pools by cls_token and mean_tokens"):
        pooling({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, [])
    (tmp_path / "modules.json").write_text("{}")
    assert Pooling.of(tmp_path / "nowhere") == Pooling()


def test_an_encoder_is_exported_with_any_number_of_histories(tmp_path: Path) -> None:
    """As bundles do: histories in, vectors out; their length stays free."""
    tokenizer = Tokenizer.train(WORDS, 300)
    config = TextConfig(max_tokens=12, width=8, layers=1, window=4)
    items = TokenisedItems(
        np.arange(5, 25, dtype=np.int32),
        np.full(20, VALUE, np.int8),
        np.array([0, 0, 3, 10, 20]),
        tokenizer.cls,
        tokenizer.pad,
    )

    class Program(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sentences = Sentences(items, max_tokens=12, max_items=3)
            self.encoder = TextEncoder(config, tokenizer)

        def forward(self, histories: Tensor) -> Tensor:
            return self.encoder.vectors(self.sentences.sequences(histories, length=12))

    program = Program().eval()
    dims = {0: torch.export.Dim("requests", max=64), 1: torch.export.Dim("events", max=64)}
    exported = torch.export.export(
        program, (torch.tensor([[1, 2], [3, 0]]),), dynamic_shapes=(dims,)
    ).module()
    histories = torch.tensor([[1, 2, 3, 1], [3, 3, 0, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(exported(histories), program(histories))
    trimmed = program.sentences.sequences(histories[1:])
    torch.testing.assert_close(program.encoder.vectors(trimmed), program(histories)[1:])


@pytest.mark.cuda
@pytest.mark.parametrize("kind", ["longformer", "roberta", "bert"])
def test_a_gpu_reads_as_a_cpu_does(kind: str, tmp_path: Path) -> None:
    write_encoder(tmp_path, kind)
    tokenizer = Tokenizer.load(tmp_path)
    encoder = TextEncoder(TextConfig(encoder=tmp_path, max_tokens=30), tokenizer).eval()
    batch = batch_of(tokenizer, [21, 5, 1])
    expected = encoder.vectors(batch)
    device = torch.device("cuda")
    vectors = encoder.to(device).vectors(batch.to(device))
    torch.testing.assert_close(vectors.cpu(), expected, atol=1e-3, rtol=1e-3)
