"""Upgrades without backfill: maps between the spaces of an old model and a new one, one method a
file; what they are worth is measured before anything is replaced."""
