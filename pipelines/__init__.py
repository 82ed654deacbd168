"""Programs: short files that pick combinations of the library's parts."""
