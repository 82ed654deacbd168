"""Which features of a log a model reads, and how."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from feature_store.errors import ConfigError
from feature_store.schema import Feature, Side
from recsys.data.examples import Examples
from recsys.inputs import Input

USABLE = ("id", "bag", "dense")
_BAG_LENGTH = 64


def choose(
    names: tuple[str, ...],
    examples: Examples,
    side: Side,
    *,
    option: str,
    without: Iterable[str | None] = (),
) -> tuple[Feature, ...]:
    """The features of a side that are named, or all of them but those in `without`.

    Raises ConfigError, naming the config's `option`, for what the log does not have.
    """
    known = {f.name: f for f in examples.schema.of_side(side) if f.kind in USABLE}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"{option} names {', '.join(unknown)}; the log has: {', '.join(known) or 'none'}"
        )
    return tuple(known[name] for name in names or (n for n in known if n not in set(without)))


def input_of(feature: Feature) -> Input:
    """How a request brings the feature."""
    return Input(feature.name, feature.kind, _BAG_LENGTH if feature.kind == "bag" else None)  # type: ignore[arg-type]


class ItemColumns(nn.Module):
    """Features of every item row, looked up in the model: requests bring the item alone."""

    def __init__(self, features: tuple[Feature, ...], examples: Examples) -> None:
        super().__init__()
        self._kinds = {f.name: f.kind for f in features}
        for feature in features:
            column = examples.item_column(feature)
            self.register_buffer(f"item_{feature.name}", column, persistent=False)

    def forward(
        self, rows: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Ids [n], bags [n, L] padded with 0 and numbers [n] of item rows [n], by name."""
        found = tuple(
            {
                name: getattr(self, f"item_{name}")[rows]
                for name, kind in self._kinds.items()
                if kind == wanted
            }
            for wanted in USABLE
        )
        return found  # type: ignore[return-value]
