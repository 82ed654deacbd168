"""Writes bundles, with the training stack; `serving` reads them without."""
