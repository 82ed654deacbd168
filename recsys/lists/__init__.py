"""What a list of items is: search, stable order, merging, membership, diversity."""
