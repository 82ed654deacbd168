"""Two bundles to look into: a cascade that explains itself, a generator of several interests."""

from __future__ import annotations

import pytest

from conformance import bundle_of, fresh, shape_of, small
from feature_store.catalogue import Catalogue
from feature_store.columns import LABEL
from feature_store.event_log import EventLog
from planted import Shape
from recsys.cascade.cascade import Cascade
from recsys.cascade.generator import Generator
from recsys.cascade.options import CascadeConfig
from recsys.cascade.ranking import Ranking
from recsys.cascade.translation import Translation
from recsys.data.examples import Examples
from recsys.explorer.looking import Looking
from recsys.export.bundle import write_bundle
from recsys.export.cascade import CascadeExport
from recsys.export.generator import GeneratorExport
from recsys.export.ranker import RankerExport
from recsys.serving.index.options import ExactConfig
from recsys.serving.manifest import About
from recsys.serving.recommender import Recommender

BUDGET, ABOUT = 12, About(run="planted", model="cascade")


@pytest.fixture(scope="package")
def cascade(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Recommender:
    """sasrec finds, sesa orders; neither has learned anything."""
    own, labelled = planted["sequences"], planted["labelled"]
    sasrec, sesa = fresh(small("sasrec"), own).eval(), fresh(small("sesa"), labelled).eval()

    def translation(part: Examples, model: object) -> Translation:
        features = [asked.feature for asked in model.inputs if asked.feature is not None]  # type: ignore[attr-defined]
        return Translation.between(own, part, features)

    whole = Cascade(
        {"sasrec": Generator(sasrec, BUDGET, translation(own, sasrec))},
        fine=Ranking(sesa, LABEL, translation(labelled, sesa)),
    )
    whole.prepare(own.candidates())
    config = CascadeConfig.model_validate(
        {"generators": {"sasrec": {"run": "a", "budget": BUDGET}}, "fine": {"run": "b"}}
    )
    exports = {
        "cascade": CascadeExport(
            whole.eval(),
            config,
            own,
            own.candidates(),
            parts={"sasrec": "generator_sasrec", "fine": "fine"},
            tasks={"fine": LABEL},
            golden=4,
            about=ABOUT,
        ),
        "generator_sasrec": GeneratorExport(
            sasrec, own, own.candidates(), index=ExactConfig(), golden=4, about=ABOUT
        ),
        "fine": RankerExport(sesa, labelled, golden=4, about=ABOUT),
    }
    catalogue = Catalogue(planted_log.folder, planted_log.schema)
    folder = tmp_path_factory.mktemp("cascade") / "bundle"
    return Recommender(write_bundle(folder, exports, catalogue, own_ids=True))


@pytest.fixture(scope="package")
def interests(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Recommender:
    """A generator of several interests."""
    examples = planted[shape_of("multi_interest")]
    model = fresh(small("multi_interest"), examples).eval()
    return bundle_of(model, examples, planted_log, tmp_path_factory.mktemp("interests") / "bundle")


@pytest.fixture(scope="package")
def looking(cascade: Recommender) -> Looking:
    return Looking(cascade)
