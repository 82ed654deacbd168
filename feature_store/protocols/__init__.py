"""The named protocols: which role every event of a log plays; one file each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from feature_store.protocols.fixed import Fixed
from feature_store.protocols.global_time import GlobalTime
from feature_store.protocols.holdouts import ItemHoldout, UserHoldout
from feature_store.protocols.last_lists import LastLists
from feature_store.protocols.leave_one_out import LeaveOneOut
from feature_store.protocols.next_basket import NextBasket
from feature_store.protocols.random import Random
from feature_store.protocols.roles import (
    LEARNT,
    SHOWN,
    TEST,
    TEST_INPUT,
    TRAIN,
    VALIDATION,
    VALIDATION_INPUT,
)

__all__ = [
    "LEARNT",
    "SHOWN",
    "TEST",
    "TEST_INPUT",
    "TRAIN",
    "VALIDATION",
    "VALIDATION_INPUT",
    "AnyProtocol",
    "Fixed",
    "GlobalTime",
    "ItemHoldout",
    "LastLists",
    "LeaveOneOut",
    "NextBasket",
    "Random",
    "SplitConfig",
    "UserHoldout",
]

AnyProtocol = (
    LeaveOneOut | NextBasket | GlobalTime | LastLists | UserHoldout | ItemHoldout | Random | Fixed
)
SplitConfig = Annotated[AnyProtocol, Field(discriminator="protocol")]
