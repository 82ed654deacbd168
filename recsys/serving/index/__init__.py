"""How items are searched at serving, an index a file."""
