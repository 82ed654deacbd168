"""What the pages show exists: links, files, commands, options and configuration keys."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from test_imports import FLOORS
from typer.main import get_command

from feature_store.errors import ConfigError
from pipelines.cli import app
from recsys.config import RunConfig, load_config, parse_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/results/README.md")
] + sorted((ROOT / "docs").glob("*.md"))
CONFIGS = ROOT / "pipelines" / "configs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OURS = re.compile(
    r"^(?:feature_store|recsys|pipelines|benchmarks|tests|docker|docs|requirements)/\S*$"
)
KEY = re.compile(r"^([a-z_]+(?:\.[a-z_0-9]+)+)(?:\s*=\s*(.+))?$")
FILES = (".html", ".json", ".jsonl", ".md", ".parquet", ".png", ".py", ".toml")
BASE = {"name": "shown", "data": {"source": "synthetic"}}
PLACEHOLDERS = {"CONFIG", "RUN"}
UsageError: Any = typer.BadParameter.__base__  # click's, or that of the click within typer


# -- reading a page --------------------------------------------------------------------------


def blocks(text: str, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(text) if language in languages]


def prose(text: str) -> str:
    return FENCE.sub("", text)


def inline(text: str) -> list[str]:
    """What stands between single backticks, on one line each."""
    return [" ".join(code.split()) for code in INLINE.findall(prose(text))]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command line in shell blocks and between backticks."""
    for body in blocks(text, "sh"):
        for line in body.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                if words := shlex.split(command, comments=True):
                    yield words
    for code in inline(text):
        if re.match(r"(recsys|make|python -m) \S", code):
            for command in code.split("&&"):
                yield shlex.split(command)


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def braces(path: str) -> list[str]:
    """`a/{b,c}.py` as `a/b.py` and `a/c.py`."""
    match = re.match(r"(.*)\{(.*)\}(.*)$", path)
    return [path] if not match else [match[1] + part + match[3] for part in match[2].split(",")]


# -- what is wrong with it -------------------------------------------------------------------


def mistakes(page: Path, text: str) -> list[str]:
    return [
        *broken_links(page, text),
        *missing_files(text),
        *wrong_commands(text),
        *wrong_toml(text),
        *wrong_keys(text),
    ]


def broken_links(page: Path, text: str) -> Iterator[str]:
    for target in LINK.findall(prose(text)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = page.parent / path if path else page
        if not there.exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in anchors(text if there == page else there.read_text()):
            yield f"{target}: no such heading"


def missing_files(text: str) -> Iterator[str]:
    for code in inline(text):
        for path in (part for word in code.split(", ") for part in braces(word)):
            if OURS.match(path) and "NAME" not in path and not (ROOT / path).exists():
                yield f"{path}: no such file"


def wrong_commands(text: str) -> Iterator[str]:
    for words in commands(text):
        shown = " ".join(words)
        if "pipelines.cli" in words:  # under torchrun
            words = ["recsys", *words[words.index("pipelines.cli") + 1 :]]
        if words[0] == "recsys":
            problem = wrong_recsys(words[1:])
        elif words[0] == "make":
            problem = wrong_make(words[1:])
        elif words[:2] == ["python", "-m"]:
            problem = wrong_module(words[2], words[3:])
        else:
            continue
        if problem:
            yield f"{shown}: {problem}"


def wrong_recsys(words: list[str]) -> str | None:
    """Parses the line as the program would; a bare verb, as in prose, needs to exist."""
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        if name == "--help" or any(name in option.opts for option in command.params):
            return None
        if name not in command.commands:
            return f"no such verb: {name}"
        command = command.commands[name]
    if not words:
        return None
    try:
        asked = command.make_context(command.name, list(words)).params
    except UsageError as error:
        return error.format_message()
    if asked.get("config") is None:
        return None
    try:
        load_config(
            config_of(str(asked["config"])), [o for o in asked["overrides"] or () if o != "..."]
        )
    except ConfigError as error:
        return str(error)
    return None


def config_of(shown: str) -> Path:
    """The file that a page names, or one that stands for what the reader has."""
    named = CONFIGS / f"{Path(shown).name}.toml" if shown.startswith("runs/") else ROOT / shown
    return CONFIGS / "synthetic_quickstart.toml" if shown in PLACEHOLDERS else named


def wrong_make(words: list[str]) -> str | None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    unknown = [word for word in words if "=" not in word and word not in targets]
    return f"no such target: {unknown[0]}" if unknown else None


def wrong_module(name: str, words: list[str]) -> str | None:
    path = ROOT / f"{name.replace('.', '/')}.py"
    if not path.exists():
        path = path.with_suffix("") / "__main__.py"
    if name.startswith("benchmarks.") and not path.exists():
        return "no such module"
    options = [word for word in words if word.startswith("--")]
    unknown = [o for o in options if path.exists() and f'"{o}"' not in path.read_text()]
    return f"no such option: {unknown[0]}" if unknown else None


def wrong_toml(text: str) -> Iterator[str]:
    """Blocks are whole configs, or parts of one over the synthetic log."""
    for body in blocks(text, "toml"):
        try:
            tree = BASE | tomllib.loads(body)
            if not {"retriever", "ranker", "cascade"} & tree.keys():
                tree["retriever"] = {"name": "sasrec"}
            parse_config(tree)
        except (ConfigError, tomllib.TOMLDecodeError) as error:
            yield f"{body.splitlines()[0]}: {error}"


def wrong_keys(text: str) -> Iterator[str]:
    """Keys between backticks, such as `trainer.keep`, of sections that configs have."""
    for code in inline(text):
        match = KEY.match(code)
        if match is None or match[1].endswith(FILES):
            continue
        parts = match[1].split(".")
        if parts[0] in RunConfig.model_fields and not knows(parts):
            yield f"{code}: no such key"


@cache
def schema() -> dict[str, Any]:
    return RunConfig.model_json_schema()


def knows(parts: list[str], node: dict[str, Any] | None = None) -> bool:
    """Whether some config has a key at this place."""
    if node is None:
        node = schema()
    if "$ref" in node:
        return knows(parts, schema()["$defs"][node["$ref"].rpartition("/")[2]])
    if not parts:
        return True
    choices = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
    if any(knows(parts, choice) for choice in choices):
        return True
    first, *rest = parts
    if first in node.get("properties", {}):
        return knows(rest, node["properties"][first])
    others = node.get("additionalProperties", False)
    return isinstance(others, dict) and knows(rest, others)


# -- tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_shows_exists(page: Path) -> None:
    assert mistakes(page, page.read_text()) == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [target.partition("#")[0] for target in LINK.findall(prose(page.read_text()))]
        ahead += [(page.parent / t).resolve() for t in targets if t.endswith(".md")]
    assert reached >= set(PAGES)


def test_the_readme_can_be_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_map_of_contributing_names_every_room() -> None:
    shown = " ".join(inline((ROOT / "CONTRIBUTING.md").read_text()))
    rooms = {room for floors in FLOORS.values() for floor in floors for room in floor}
    assert rooms <= set(re.findall(r"\w+", shown))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[there](nowhere.md)", "nowhere.md: no such file"),
        ("[there](README.md#nothing)", "no such heading"),
        ("## A *new* heading\n[there](#a-new-headin)", "no such heading"),
        ("`recsys/retrievers/{sasrec,sasrek}.py`", "recsys/retrievers/sasrek.py: no such file"),
        ("```sh\nrecsys bake CONFIG\n```", "no such verb: bake"),
        ("`recsys bake`", "no such verb: bake"),
        ("```sh\nrecsys run CONFIG \\\n    --resum\n```", "No such option"),
        ("```sh\nrecsys recommend runs/a -k ten\n```", "valid integer"),
        ("```sh\nrecsys score runs/a\n```", "Missing option"),
        ("```sh\nrecsys run pipelines/configs/no.toml\n```", "cannot read"),
        ("```sh\nrecsys run CONFIG trainer.epoch=3\n```", "unknown key trainer.epoch"),
        ("`recsys tune CONFIG tune.trials=many`", "tune.trials"),
        ("```sh\ntorchrun --nnodes 2 -m pipelines.cli runn CONFIG\n```", "no such verb: runn"),
        ("```sh\nmake coffee\n```", "no such target: coffee"),
        ("`python -m benchmarks.reeder`", "no such module"),
        ("`python -m benchmarks.results --ony x`", "no such option: --ony"),
        ("```toml\n[retriever]\nname = 'sasrec'\nblokcs = 2\n```", "unknown key retriever.blokcs"),
        ("```toml\n[retriever]\nname = \n```", "Invalid value"),
        ("`trainer.keeps`", "trainer.keeps: no such key"),
        ("`embeddings.tables.user_id.row=5`", "no such key"),
    ],
)
def test_what_does_not_exist_is_noticed(text: str, problem: str) -> None:
    (message,) = mistakes(ROOT / "README.md", text)
    assert problem in message


@pytest.mark.parametrize("verb", ["", *get_command(app).commands])  # type: ignore[attr-defined]
def test_every_verb_has_help_and_a_page(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["recsys", *verb.split(), "--help"])
    with pytest.raises(SystemExit) as ended:
        app()
    assert ended.value.code == 0 and "Usage" in capsys.readouterr().out
    shown = {tuple(words[:2]) for page in PAGES for words in commands(page.read_text())}
    assert not verb or ("recsys", verb) in shown
