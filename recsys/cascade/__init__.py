"""Several models as one: generators find candidates, rankers narrow them down."""
