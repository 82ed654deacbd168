"""How lists explore and who answers whom, as words of `recsys serve`."""

from __future__ import annotations

from pathlib import Path

import pytest

from feature_store.errors import ConfigError
from pipelines.cli.arms import arm_in, exploration
from recsys.policy.exploration import Exploration


def test_words_that_say_how_lists_explore() -> None:
    assert exploration(None) is None
    assert exploration(["share=0.1", "keep=2"]) == Exploration(share=0.1, keep=2)
    for word in ("share=2", "shares=0.1", "share", "pool=x"):
        with pytest.raises(ConfigError, match="there are: share, temperature, keep, pool"):
            exploration([word])


def test_words_that_say_who_answers_whom(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    assert arm_in(f"new=0.25={tmp_path}") == ("new", (0.25, tmp_path / "bundle"))
    for words in ("new", "new=0.25", f"new=some={tmp_path}", f"=0.25={tmp_path}", "main=1=x"):
        with pytest.raises(ConfigError, match="write NAME=SHARE=BUNDLE"):
            arm_in(words)
