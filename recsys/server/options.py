"""How a server listens, waits and gives up."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from feature_store.options import Options
from recsys.policy.exploration import Exploration


class ServerOptions(Options):
    """What may differ from one server of a bundle to another."""

    host: str = Field("127.0.0.1", description="Address to listen at.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen at; 0 for any.")
    max_body: int = Field(1 << 20, ge=1, description="Bytes of a request's body.")
    window_ms: float = Field(
        1.0, ge=0, le=1000, description="Questions that come within it are answered as one batch."
    )
    max_batch: int = Field(128, ge=1, description="Questions of a batch.")
    queue: int = Field(1024, ge=1, description="Questions that may wait; beyond them: status 429.")
    deadline_ms: float = Field(2000, gt=0, description="After it a question is given up: 503.")
    drain_s: float = Field(10, gt=0, description="Seconds in which a stop answers what it has.")
    watch_s: float = Field(
        1.0, ge=0, description="Seconds between looks for another bundle; 0 for none."
    )
    accept_items: Path | None = Field(
        None, description="The serving folder, or the run, to publish new items in that come."
    )
    explorer: bool = Field(True, description="Whether there is a page for people at /.")
    beside: Path | None = Field(None, description="A bundle that the page shows beside this one.")
    threads: int | None = Field(
        None, ge=1, description="Of a batch; by default half of the processors."
    )
    explore: Exploration | None = Field(None, description="How lists explore; it needs exposures.")
    exposures: Path | None = Field(None, description="Folder of a log of what was shown.")
    arms: dict[str, tuple[float, Path]] = Field(
        {}, description="Shares of users, by name of their arm, and the bundles that answer them."
    )
    salt: str = Field("", description="Another one divides users into other arms.")
    measure_index: bool = Field(
        True, description="Whether promises of an index are measured again on another machine."
    )
    signed_by: Path | None = Field(None, description="Public key that bundles must be signed by.")
