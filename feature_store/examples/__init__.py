"""A split log -> encoded Parquet examples: what the reader reads and nothing else.

A folder of examples holds
    examples.json            fingerprints and counts
    made_from.json           what whoever wrote them says that they were made from
    vocabulary/<table>.arrow raw ids of every embedding table
    items.parquet            row r: features and training events of item row r (0 = unknown)
    item_texts.parquet       the texts of the same rows, for models that read them
    users.parquet            features of user rows; without a vocabulary, of those catalogued
    interactions.parquet     user row, item row, time of every training event, in time order; where
                             days joined the log a folder, with a file more for each
    train.parquet/           one row a user or one row an event: see `RowsOf`
    validation.parquet/      one row a user: full history, targets, time of the request; where
                             labels are trained one row an event, as in training
    test.parquet/            the same, with validation events in the history
                             targets are distinct; with prices, what each was worth
    serving.parquet          one row a user: all events as history, as raw ids, for the bundle;
                             likewise a folder, in which the newest row of a user counts
The rows of a role lie in files that are numbered in their order: 00000.parquet, ... Ids are
vocabulary rows or, where they have no vocabulary, 64-bit codes (`feature_store.hashing`), and the
raw strings of some lie in `raw#` columns; times are whole seconds since 1970.
"""

from __future__ import annotations

from feature_store.examples.grown import Before, grow, held_before
from feature_store.examples.spec import MADE_FROM, ExamplesSummary, RowsOf, files_of, parts_of
from feature_store.examples.users import UserFeatures
from feature_store.examples.write import check_keyed, write_examples

__all__ = [
    "MADE_FROM",
    "Before",
    "ExamplesSummary",
    "RowsOf",
    "UserFeatures",
    "check_keyed",
    "files_of",
    "grow",
    "held_before",
    "parts_of",
    "write_examples",
]
