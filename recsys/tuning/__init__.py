"""Search for the best options."""
