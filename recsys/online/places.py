"""Where users are kept: a URL, or the folder of a bundle or a run -> what is opened there."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from feature_store.errors import DataError
from recsys.online.rules import Rules
from recsys.online.store import UserStore
from recsys.serving.users import KnownUsers

_WAYS = "sqlite:///users.db, redis://host:6379/0?prefix=recsys, or the folder of a bundle"
_REDIS = ("redis", "rediss", "unix")
_PUBLIC = ("prefix", "db")


def open_store(url: str, rules: Rules | None = None, *, alike: bool = True) -> UserStore:
    """The store at a URL, made by `rules` where there is none yet; one that is there has to be
    `alike`, or has rules of its own.

    `sqlite:///users.db` is a file in the working folder, `sqlite:////data/users.db` one anywhere;
    `redis://`, `rediss://` (TLS) and `unix://` (a socket) are servers, where `prefix` begins the
    names of all keys. Raises DataError for another URL, and as the kinds do.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        path = unquote(parts.path)[1:]
        if parts.netloc or not path:
            raise DataError(f"{shown(url)} names no file: write sqlite:///users.db")
        from recsys.online.sqlite import SqliteStore

        return SqliteStore(Path(path), rules, alike=alike)
    if parts.scheme in _REDIS:
        from recsys.online.redis import PREFIX, RedisStore

        query = dict(parse_qsl(parts.query))
        prefix = query.pop("prefix", PREFIX)
        address = _url(parts.scheme, parts.netloc, parts.path, query)
        return RedisStore(address, shown(url), prefix, rules, alike=alike)
    raise DataError(f"{shown(url)} is no store of users: write {_WAYS}")


def open_users(place: str) -> KnownUsers:
    """The store at a URL; of the folder of a bundle, or of a run with one, its users, which take no
    events. Raises DataError as `open_store`, and for a folder without a bundle."""
    folder = Path(place)
    if urlsplit(place).scheme or not folder.is_dir():
        return open_store(place)
    from recsys.serving.bundle import Bundle

    inside = folder / "bundle"
    return Bundle.open(inside if inside.exists() else folder).users


def shown(url: str) -> str:
    """A URL as it may be told to anybody: without names, passwords and what else a query holds."""
    parts = urlsplit(url)
    if parts.scheme not in _REDIS:
        return url
    host = parts.netloc.rpartition("@")[2]
    query = {name: value for name, value in parse_qsl(parts.query) if name in _PUBLIC}
    return _url(parts.scheme, host, parts.path, query)


def _url(scheme: str, host: str, path: str, query: dict[str, str]) -> str:
    """As it was written; urllib takes the two strokes from a socket's."""
    behind = urlencode(query, quote_via=quote)
    return f"{scheme}://{host}{path}" + (f"?{behind}" if behind else "")
