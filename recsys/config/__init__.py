"""The one typed tree behind the one TOML file."""

from __future__ import annotations

from recsys.config.load import load_config, parse_config
from recsys.config.run_config import ExportConfig, RunConfig, TrackingConfig

__all__ = ["ExportConfig", "RunConfig", "TrackingConfig", "load_config", "parse_config"]
