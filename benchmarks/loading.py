"""How long do `import recsys`, `recsys --help` and `import recsys.config` take?

CPU seconds (user and system) of fresh processes with their bytecode written, medians of
repetitions in turn, in which the time to start Python itself is contained.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys

WAYS = {
    "import_recsys": ["-c", "import recsys"],
    "recsys_help": ["-m", "pipelines.cli", "--help"],
    "import_recsys_config": ["-c", "import recsys.config"],
}


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=7)
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for repetition in range(args.repetitions + 1):
        for name, arguments in WAYS.items():
            taken = cpu_seconds([sys.executable, *arguments])
            if repetition:  # the first one writes bytecode
                seconds[name].append(taken)
    medians = {name: round(statistics.median(times), 3) for name, times in seconds.items()}
    print(json.dumps({"benchmark": "loading", "cpu_seconds": medians, **vars(args)}))


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
