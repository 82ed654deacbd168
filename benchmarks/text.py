"""How fast are sentences of items read, beside the same Longformer used plainly?

At each size in turn: training steps over the same batches of histories, each with its next item
as the target (cosines within the batch, temperature 0.05, AdamW), and encoding of items. Plainly is
transformers' own LongformerModel with the same weights, every sequence padded to `--tokens`, every
item to the longest one and encoded by itself, again in each sequence; `batched` pads as much, but
encodes the items of a batch together. Ours pads batches of like length to the longest of them, and
encodes each distinct sentence once. All answer alike, which is checked. `speedup` is the smallest
of ours over plainly, of training and of encoding, at all sizes.

Histories are drawn, with Zipf's popularity and lengths of 5 to 50, over titles of words drawn
likewise; `--data` takes Amazon Beauty's. Memory is what a batch keeps for its backward pass, or on
a GPU the peak of a step.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import timed
from feature_store.sources.amazon import Amazon
from recsys.text.batches import Sentences, TextBatch
from recsys.text.encoder import TextEncoder
from recsys.text.options import TextConfig
from recsys.text.tokenise import tokenise, tokenizer_of
from recsys.text.vectors import item_vectors

SIZES = {  # width, layers, heads, window
    "small": (64, 2, 2, 64),
    "middle": (256, 4, 4, 64),
    "base": (768, 12, 12, 512),
}
TEMPERATURE = 0.05
ITEMS, USERS = 4096, 2048  # of drawn ones


@dataclass(frozen=True)
class Log:
    """Titles of items, row 0 of none, and histories of their rows, the target last."""

    titles: pa.Table
    histories: list[np.ndarray]

    @classmethod
    def drawn(cls, seed: int = 1) -> Log:
        """Titles of 2 to 30 words, about 9 in the mean, of which some are given twice."""
        random = np.random.default_rng(seed)
        words = np.array([f"w{number:x}" for number in range(4000)])
        lengths = np.clip(random.lognormal(2.1, 0.5, ITEMS), 2, 30).astype(int)
        titles = [" ".join(words[random.zipf(1.3, n) % len(words)]) for n in lengths]
        titles[-ITEMS // 20 :] = titles[: ITEMS // 20]
        sizes = np.clip(random.lognormal(2.0, 0.6, USERS), 5, 50).astype(int)
        histories = [1 + random.zipf(1.2, size) % ITEMS for size in sizes]
        return cls(pa.table({"title": [None, *titles]}), histories)

    @classmethod
    def beauty(cls, folder: Path) -> Log:
        """Amazon Beauty's titles and sequences."""
        source = Amazon(path=folder)
        items = pa.concat_tables([chunk.table for chunk in source.read_items()])
        events = pa.concat_tables([chunk.table for chunk in source.read_events()]).to_pandas()
        ids = items["item_id"].cast(pa.string()).to_pylist()  # as the events have them
        rows = {item: row for row, item in enumerate(ids, start=1)}
        events["row"] = events["item_id"].map(rows)
        of_users = events.dropna().groupby("user_id", sort=False)["row"]
        histories = [group.to_numpy(np.int64)[-51:] for _, group in of_users]
        title = pa.concat_arrays([pa.nulls(1, pa.string()), items["title"].combine_chunks()])
        return cls(pa.table({"title": title}), histories)

    def batches(self, lengths: np.ndarray, count: int, rows: int) -> list[tuple[Tensor, Tensor]]:
        """The first `count` batches of histories [B, T] and targets [B], like lengths together."""
        chosen = self.histories[: count * rows]
        tokens = np.array([lengths[history[:-1]].sum() for history in chosen])
        order = np.argsort(-tokens, kind="stable").reshape(count, rows)
        made = []
        for places in order:
            own = [torch.from_numpy(chosen[place]) for place in places]
            padded = nn.utils.rnn.pad_sequence([h[:-1] for h in own], batch_first=True)
            made.append((padded, torch.stack([h[-1] for h in own])))
        return made


def padded(batch: TextBatch, length: int, pad: int) -> TextBatch:
    """The batch, as long as the longest that there may be."""
    more = length - batch.tokens.shape[1]
    fills = (pad, 3, 0, False)
    parts = (F.pad(p, (0, more), value=f) for p, f in zip(batch.parts(), fills, strict=True))
    return TextBatch(*parts)


class Plain(nn.Module):
    """transformers' Longformer with the weights of an encoder."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.model = transformers.LongformerModel(encoder.model.config, add_pooling_layer=False)
        self.model.load_state_dict(encoder.model.state_dict())

    def vectors(self, batch: TextBatch) -> Tensor:
        """[B, D], of the first token."""
        everywhere = torch.zeros_like(batch.tokens)
        everywhere[:, 0] = 1
        output = self.model(
            input_ids=batch.tokens,
            attention_mask=batch.mask.long(),
            global_attention_mask=everywhere,
        )
        return output.last_hidden_state[:, 0]  # type: ignore[no-any-return]


Way = tuple[nn.Module, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Arms:
    """What encodes histories [B, T] and items [n], in each way."""

    ours: TextEncoder
    plain: Plain
    sentences: Sentences
    longest_item: int

    def plain_users(self, histories: Tensor) -> Tensor:
        """Padded to the most tokens that there may be."""
        sequences = self.sentences.sequences(histories)
        return self.plain.vectors(padded(sequences, self.sentences.max_tokens, self.sentences.pad))

    def plain_items(self, rows: Tensor) -> Tensor:
        """All together, padded to the longest item."""
        items = self.sentences.items(rows)
        return self.plain.vectors(padded(items, self.longest_item, self.sentences.pad))

    def one_by_one(self, rows: Tensor) -> Tensor:
        """Each item by itself."""
        return torch.cat([self.plain_items(row) for row in rows.split(1)])

    def our_users(self, histories: Tensor) -> Tensor:
        """Padded to the longest of them."""
        return self.ours.vectors(self.sentences.sequences(histories))

    def our_items(self, rows: Tensor) -> Tensor:
        """Each distinct sentence once."""
        distinct, of_row = self.sentences.distinct(rows)
        return self.ours.vectors(self.sentences.items(distinct))[of_row]

    def ways(self) -> dict[str, Way]:
        """By name: the model, and what encodes histories and items."""
        return {
            "ours": (self.ours, self.our_users, self.our_items),
            "plain": (self.plain, self.plain_users, self.one_by_one),
            "batched": (self.plain, self.plain_users, self.plain_items),
        }


def loss_of(way: Way, histories: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of the next item among those of the batch, by cosine."""
    _, users, items = way
    cosines = F.normalize(users(histories), dim=1) @ F.normalize(items(targets), dim=1).T
    return F.cross_entropy(cosines / TEMPERATURE, torch.arange(len(targets), device=cosines.device))


def kept_bytes(way: Way, histories: Tensor, targets: Tensor) -> int:
    """Bytes that a batch keeps for its backward pass, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in way[0].parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(way, histories, targets)
        size = sum(kept.values())  # while all of it is still there
    del loss
    return size


def peak_bytes(way: Way, histories: Tensor, targets: Tensor) -> int:
    """The most that a step holds on a GPU, weights and gradients included."""
    torch.cuda.reset_peak_memory_stats()
    loss_of(way, histories, targets).backward()
    way[0].zero_grad()
    return torch.cuda.max_memory_allocated()


def _stepper(way: Way) -> Callable[[Tensor, Tensor], None]:
    """A whole step of training."""
    optimizer = torch.optim.AdamW(way[0].parameters(), lr=1e-5)
    way[0].train()

    def step(histories: Tensor, targets: Tensor) -> None:
        loss_of(way, histories, targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def training(arms: Arms, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Sequences a second of steps over all batches, each way in turn; bytes of the largest one."""
    device = batches[0][0].device
    bytes_of = peak_bytes if device.type == "cuda" else kept_bytes
    ways = arms.ways()
    steps = {name: _stepper(way) for name, way in ways.items()}
    for step in steps.values():  # the first call is not measured
        step(*batches[-1])
    seconds = dict.fromkeys(steps, 0.0)
    for batch in batches:
        for name, step in steps.items():
            seconds[name] += timed(step, *batch, device=device)
    memory = {name: bytes_of(way, *batches[0]) for name, way in ways.items()}
    rows = sum(len(targets) for _, targets in batches)
    return {
        "sequences_per_second": {name: round(rows / spent, 2) for name, spent in seconds.items()},
        "batch_mb": {name: round(size / 1e6, 1) for name, size in memory.items()},
        "speedup": round(seconds["plain"] / seconds["ours"], 2),
        "speedup_over_batched": round(seconds["batched"] / seconds["ours"], 2),
    }


@torch.no_grad()
def encoding(arms: Arms, rows: Tensor) -> dict[str, Any]:
    """Items a second of encoding `rows`, each way in turn."""
    for model, *_ in arms.ways().values():
        model.eval()
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": lambda rows: item_vectors(arms.ours, arms.sentences, rows),
        "plain": arms.one_by_one,
        "batched": lambda rows: torch.cat([arms.plain_items(part) for part in rows.split(64)]),
    }
    made = {name: way(rows[:64]) for name, way in ways.items()}
    for vectors in made.values():  # the same Longformer: the same answers
        torch.testing.assert_close(vectors, made["plain"], atol=1e-3, rtol=1e-3)
    seconds = {name: timed(way, rows, device=rows.device) for name, way in ways.items()}
    return {
        "items_per_second": {name: round(len(rows) / spent, 1) for name, spent in seconds.items()},
        "speedup": round(seconds["plain"] / seconds["ours"], 2),
        "speedup_over_batched": round(seconds["batched"] / seconds["ours"], 2),
    }


def measure(log: Log, size: str, args: argparse.Namespace) -> dict[str, Any]:
    """Training and encoding at one size."""
    width, layers, heads, window = SIZES[size]
    config = TextConfig(
        attributes=("title",),
        **{"width": width, "layers": layers, "heads": heads, "window": window},
        **{"max_tokens": args.tokens, "token_types": False, "item_positions": False},
        pooling="first",  # as the plain one answers
    )
    tokenizer = tokenizer_of(log.titles, config)
    items = tokenise(log.titles, tokenizer, config)
    device = torch.device(args.device)
    torch.manual_seed(1)
    encoder = TextEncoder(config, tokenizer).to(device)
    sentences = Sentences(items, max_tokens=args.tokens, max_items=50).to(device)
    longest = int(sentences.lengths(torch.arange(len(items), device=device)).max())
    arms = Arms(encoder, Plain(encoder).to(device), sentences, longest)
    batches = [
        (histories.to(device), targets.to(device))
        for histories, targets in log.batches(items.lengths, args.batches, args.batch_size)
    ]
    asked = torch.randperm(len(items) - 1)[: args.items].to(device) + 1
    result = {
        "size": size,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "encoding": encoding(arms, asked),
        "training": training(arms, batches),
    }
    print(json.dumps(result), file=sys.stderr, flush=True)
    return result


def main() -> None:
    """Measure all sizes and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="Amazon Beauty, folder or zip")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "middle"])
    parser.add_argument("--tokens", type=int, default=512, help="of a sequence, at most")
    parser.add_argument("--batches", type=int, default=4, help="of a training run")
    parser.add_argument("--batch-size", type=int, default=16, help="histories of a batch")
    parser.add_argument("--items", type=int, default=512, help="encoded")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    log = Log.drawn() if args.data is None else Log.beauty(args.data)
    measured = [measure(log, size, args) for size in args.sizes]
    parts = [result[part]["speedup"] for result in measured for part in ("training", "encoding")]
    print(
        json.dumps(
            {
                "benchmark": "text",
                "data": "drawn" if args.data is None else "amazon_beauty",
                "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device,
                "threads": torch.get_num_threads(),
                "tokens": args.tokens,
                "batch_size": args.batch_size,
                "sizes": measured,
                "speedup": min(parts),
            }
        )
    )


if __name__ == "__main__":
    main()
