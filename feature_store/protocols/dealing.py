"""Shares of ids and of events that are drawn by hashes: the same wherever they are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.columns import POSITION
from feature_store.schema import Schema
from feature_store.timeline import shuffle

if TYPE_CHECKING:
    import ibis.expr.types as ir


def place_of(ids: ir.Column, seed: int) -> ir.FloatingColumn:
    """Where in [0, 1) each id stands when all distinct ones are put in random order."""
    import ibis

    return ibis.dense_rank().over(order_by=[shuffle(ids, seed), ids]) / ids.nunique().as_scalar()


def dealt(events: ir.Table, schema: Schema, seed: int) -> ir.IntegerColumn:
    """Numbers from 0 as in dealing cards: a user's events, shuffled, get consecutive ones."""
    import ibis

    user = events[schema.user]
    keys = [shuffle(user, seed), user, shuffle(events[POSITION], seed)]
    return ibis.row_number().over(order_by=keys)


def spread(number: ir.NumericColumn) -> ir.FloatingColumn:
    """Whole numbers to [0, 1): multiples of the golden ratio, modulo 1.

    Of any m consecutive numbers about m * p fall below p, so shares hold for every user.
    """
    turned = number * 0.6180339887498949
    return turned - turned.floor()
