"""One file a question; each prints one JSON line with units. `python -m benchmarks.NAME --help`."""
