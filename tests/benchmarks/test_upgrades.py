"""What the old model of the benchmark may know."""

from __future__ import annotations

from pathlib import Path

from benchmarks.upgrades import write_before


def test_the_old_model_knows_no_later_event_and_nobodys_last_two(tmp_path: Path) -> None:
    source, before = tmp_path / "ml-1m", tmp_path / "before"
    source.mkdir()
    for name in ("movies.dat", "users.dat"):
        (source / name).write_text(name)
    early = [(1, item, 10 + item) for item in range(5)]  # of which the last two are held out
    late = [(2, 9, 12), *((2, item, 90 + item) for item in range(4))]
    rows = [f"{user}::{item}::5::{time}" for user, item, time in [*late, *early[::-1]]]
    (source / "ratings.dat").write_text("\n".join(rows) + "\n")
    write_before(source, before)
    # 70 % of ten moments end within user 2's later ones
    assert (before / "ratings.dat").read_text().splitlines() == [
        "2::9::5::12",
        "2::0::5::90",
        "1::2::5::12",
        "1::1::5::11",
        "1::0::5::10",
    ]
    assert (before / "movies.dat").read_text() == "movies.dat"
