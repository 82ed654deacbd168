"""The publisher's own split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from feature_store.errors import DataError
from feature_store.protocols.base import Protocol
from feature_store.protocols.dealing import dealt, spread
from feature_store.protocols.roles import TRAIN, VALIDATION, cases
from feature_store.schema import Schema

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Fixed(Protocol):
    """The publisher's own split. Without a published validation part, a share of each user's
    training events becomes it."""

    protocol: Literal["fixed"] = "fixed"
    validation: float = Field(
        0.1, gt=0, lt=1, description="Share of training events, if the publisher gives none."
    )
    seed: int = Field(0, ge=0, description="Which training events become validation.")

    @property
    def base_name(self) -> str:
        """`fixed`."""
        return self.protocol

    def check(self, schema: Schema) -> None:
        """Raises DataError when the log carries no published roles, and as any protocol."""
        super().check(schema)
        if schema.published_role is None:
            raise DataError(
                "protocol = 'fixed' needs a published split, as source = 'edge_list' finds in "
                "train.txt and test.txt: this log has none, choose another protocol"
            )

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event."""
        assert schema.published_role is not None
        published = events[schema.published_role]
        has_validation = (published == VALIDATION).any().over()
        taken = spread(dealt(events, schema, self.seed)) < self.validation
        return cases(((published == TRAIN) & taken & ~has_validation, VALIDATION), else_=published)
