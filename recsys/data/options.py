"""Options of reading examples."""

from __future__ import annotations

from pydantic import Field

from feature_store.options import Options


class ReaderConfig(Options):
    """How examples are read."""

    batch_size: int = Field(128, ge=1, description="Rows of a batch, over all processes.")
    buffer_row_groups: int = Field(
        4, ge=1, description="Row groups in memory per lane and worker; rows shuffle within them."
    )
    workers: int = Field(2, ge=1, description="Threads that prepare blocks ahead.")
    lanes: int = Field(
        0,
        ge=0,
        description="Slices of a batch read independently; 0 means one a process. "
        "Fix it to see the same batches with any number of processes that divides it.",
    )
    bucket_batches: int = Field(
        8,
        ge=0,
        description="Sort this many batches by length before cutting them; 0 turns it off, and "
        "rankers never do.",
    )
