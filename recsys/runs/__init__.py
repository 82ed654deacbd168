"""A run: its folder, and what is done in it."""
