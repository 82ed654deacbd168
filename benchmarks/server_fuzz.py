"""Does any request get a fault, or an answer that the server's own document does not allow?

Schemathesis makes requests of the OpenAPI document, those that it allows and those that it does
not, and asks the application within the process. Every status of 500 or more is an error, and so
is an answer of another shape, type or status than documented. That good questions are refused is
none: the document knows neither the ids nor the columns of the log.

    python -m benchmarks.server_fuzz runs/NAME/bundle --examples 500
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from recsys.server.app import Door, make_app
from recsys.server.options import ServerOptions
from recsys.server.service import Service


def fuzz(app: Door, examples: int, seed: int = 0) -> Counter[int]:
    """Statuses of the answers. Raises what Schemathesis does where one is wrong."""
    schema: Any = schemathesis.openapi.from_asgi("/openapi.json", app)
    schema.config.generation.update(modes=list(GenerationMode))
    statuses: Counter[int] = Counter()
    for result in schema.get_all_operations():
        strategy = result.ok().as_strategy()

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=strategy)
        def ask(case: Any) -> None:
            response = case.call_and_validate(excluded_checks=[positive_data_acceptance])
            statuses[response.status_code] += 1

        ask()
    return statuses


def main() -> None:
    """Ask and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--examples", type=int, default=500, help="of each operation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    service = Service(args.bundle, ServerOptions(watch_s=0, window_ms=0))
    statuses = fuzz(make_app(service), args.examples, args.seed)
    print(json.dumps({"benchmark": "server_fuzz", "errors": 0, "statuses": dict(statuses)}))


if __name__ == "__main__":
    main()
