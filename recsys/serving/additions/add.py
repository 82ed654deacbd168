"""A bundle and a table of items -> a bundle that finds those as well."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary
from recsys.serving.additions.golden_again import answered_again
from recsys.serving.additions.longer_program import write_longer_program
from recsys.serving.additions.new_items import new_items
from recsys.serving.bundle import CATALOGUE, PARTS, Bundle
from recsys.serving.files import copy_file, digest
from recsys.serving.finder import ITEM_IDS
from recsys.serving.generator import ITEMS, PROGRAM, Generator
from recsys.serving.golden import GOLDEN
from recsys.serving.index.base import Queries
from recsys.serving.index.kinds import recall_against_exact
from recsys.serving.index.options import ApproximateConfig
from recsys.serving.item_encoder import ItemEncoder
from recsys.serving.manifest import GeneratorRecord, Manifest
from recsys.serving.recommender import Recommender


def add_items(base: Path, items: pa.Table, aside: Path) -> int:
    """Write into the empty folder `aside` the bundle of `base` with further items, and return how
    many: those of a table with the columns of the log's item features that it does not find yet.

    They are encoded from their texts by the bundle's own program, found like any other, filtered
    by what the table says of them, and read in histories from then on. Everything else stays as it
    was: golden requests are answered with the same known items, and perhaps new ones among them.

    Nothing is written where it finds all of them.

    Raises DataError where the bundle has other parts than one generator that reads texts, an item
    does not fit (`new_items`), or the index would not find enough of them.
    """
    bundle = Bundle.open(base)
    if len(bundle.manifest.parts) > 1:
        raise DataError(
            f"{base} has several parts, {', '.join(bundle.manifest.parts)}, of which not all know "
            "items by their texts alone: add items to a bundle of a single generator"
        )
    generator = Generator.open(bundle)
    encoder = ItemEncoder.open(bundle, generator.name)
    new = new_items(items, generator, encoder.config.attributes)
    if not new.num_rows:
        return 0
    grown = Grown(generator, encoder, new, encoder.vectors(new))
    known = len(generator.item_ids)
    changed = grown.write(aside)
    for name in bundle.manifest.files.keys() - changed:
        copy_file(bundle.file(name), aside / name)
    recommender = Recommender(Bundle.of_checked_files(aside, grown.manifest(aside)))
    write_parquet(answered_again(recommender, known), grown.part(aside) / GOLDEN)
    grown.check_index(recommender.generator)
    grown.manifest(aside).save(aside)
    return len(grown.vectors)


@dataclass(frozen=True)
class Grown:
    """A generator, further items [n] as its catalogue has them, and their vectors [n, D]."""

    generator: Generator
    encoder: ItemEncoder
    items: pa.Table
    vectors: Tensor

    @property
    def ids(self) -> pa.Array:
        """Of the further items [n]."""
        return self.items.column(self.generator.bundle.schema.item).combine_chunks()

    def part(self, folder: Path) -> Path:
        """The folder of the generator in that of a bundle."""
        return folder / PARTS / self.generator.name

    def write(self, folder: Path) -> set[str]:
        """Write what changes, but for golden requests and the manifest; returns the files."""
        generator, part = self.generator, self.part(folder)
        part.mkdir(parents=True)
        np.save(part / ITEMS, torch.cat([generator.items, self.vectors]).numpy())
        Vocabulary(pa.concat_arrays([generator.item_ids, self.ids])).save(part / ITEM_IDS)
        generator.index.add(self.vectors, generator.record.space)
        generator.index.save(part)
        self._write_rows(folder)
        if generator.bundle.catalogue is not None:
            self._write_catalogue(generator.bundle.catalogue, folder / CATALOGUE)
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    def manifest(self, folder: Path) -> Manifest:
        """That of the bundle whose files lie in a folder."""
        before, record = self.generator.bundle.manifest, self.generator.record
        record = record.model_copy(update={"candidates": record.candidates + len(self.vectors)})
        parts: dict[str, GeneratorRecord] = {self.generator.name: record}
        created = datetime.now(UTC).isoformat(timespec="seconds")
        files = {name: digest(folder / name) for name in before.files}
        return before.model_copy(update={"created": created, "parts": parts, "files": files})

    def check_index(self, generator: Generator) -> None:
        """Raises DataError where the index of the new bundle no longer finds what it promised, or
        too few of the new items by their own vectors."""
        generator.measure_index()
        config = generator.record.index.config
        if isinstance(config, ApproximateConfig):
            weights = self.vectors.new_ones(len(self.vectors), 1)
            asked = Queries(self.vectors.unsqueeze(1), weights, generator.record.space)
            recall = recall_against_exact(generator.index, asked)
            if recall < config.recall_target:
                raise DataError(
                    f"the index {config} finds {recall:.3f} of what is nearest to the new items, "
                    f"less than {config.recall_target}: export the bundle again with them"
                )

    def _write_rows(self, folder: Path) -> None:
        """The ids of items by rows, and the user program, which reads their texts in histories;
        unless the log had them all, although they were not found."""
        generator, bundle = self.generator, self.generator.bundle
        key = bundle.schema.item
        known = bundle.vocabularies_of(generator.name)[key]
        unseen = self.items.filter(pa.array(known.encode(self.ids) == 0))
        if not unseen.num_rows:
            return
        ids = unseen.column(key).combine_chunks().cast(known.values.type)
        path = folder / {**bundle.manifest.vocabularies, **generator.record.vocabularies}[key]
        path.parent.mkdir(parents=True, exist_ok=True)
        Vocabulary(pa.concat_arrays([known.values, ids])).save(path)
        program = bundle.part_file(generator.name, PROGRAM)
        tokens = self.encoder.tokens(unseen)
        write_longer_program(program, tokens, self.part(folder) / PROGRAM)

    def _write_catalogue(self, source: Path, target: Path) -> None:
        known = read_parquet(source)
        ids = known.column(self.generator.bundle.schema.item).combine_chunks()
        more = self.items.filter(pc.invert(pc.is_in(self.ids, value_set=ids)))
        more = more.select(known.column_names).cast(known.schema)
        write_parquet(pa.concat_tables([known, more]), target)
