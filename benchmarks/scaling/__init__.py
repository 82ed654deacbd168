"""Step time and memory on clusters that are not there: `python -m benchmarks.scaling`."""
