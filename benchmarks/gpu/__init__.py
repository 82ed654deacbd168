"""Everything that needs a GPU, in order of worth, in as many minutes as there are.

`python -m benchmarks.gpu --minutes 8` writes one JSON with the environment and what each step said;
a step that fails or hangs is recorded, and the next one begins. `--dry-run` does the same with tiny
sizes on the CPU.
"""
