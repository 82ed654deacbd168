"""What differs between two bundles, as a file: see `recsys.serving.delta.record`."""
