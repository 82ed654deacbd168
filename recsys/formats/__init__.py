"""Bundles for other engines: each format is written, opened again and asked the golden requests."""
