"""Building blocks of models, one a file."""
