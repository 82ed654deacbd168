"""The methods. A new one is its file, its options and a line in the dict below."""

from __future__ import annotations

from recsys.compatible.aligner import Aligner
from recsys.compatible.basis_transformation import BasisTransformation
from recsys.compatible.contract import Fitted, Learnt
from recsys.compatible.frozen_index import FrozenIndex
from recsys.compatible.options import (
    AlignerConfig,
    BasisTransformationConfig,
    FrozenIndexConfig,
    OrthogonalConfig,
    ProcrustesConfig,
    RelativeConfig,
    SimplexConfig,
)
from recsys.compatible.orthogonal import Orthogonal
from recsys.compatible.procrustes import Procrustes
from recsys.compatible.relative import Relative
from recsys.compatible.simplex import Simplex
from recsys.options import Kind

METHODS: dict[type[Kind], type[Fitted] | type[Learnt]] = {
    FrozenIndexConfig: FrozenIndex,
    ProcrustesConfig: Procrustes,
    AlignerConfig: Aligner,
    BasisTransformationConfig: BasisTransformation,
    OrthogonalConfig: Orthogonal,
    SimplexConfig: Simplex,
    RelativeConfig: Relative,
}


def method_of(config: Kind) -> type[Fitted] | type[Learnt]:
    """The class of the method that a config chooses."""
    return METHODS[type(config)]
