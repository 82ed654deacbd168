"""What a path or a URL means, and that none brings its credentials with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from feature_store.errors import ConfigError, DataError
from feature_store.storage import Remote, on_disk, place
from feature_store.storage.secrets import scrubbed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://shop/log/", "s3://shop/log"),
        (Path("s3://shop/log"), "s3://shop/log"),  # which has lost a slash
        ("s3a://shop/log", "s3://shop/log"),
        ("GS://shop/log", "gs://shop/log"),
        ("/data/log", "/data/log"),
        ("data/s3/log", "data/s3/log"),
        ("file:///data/log", "/data/log"),
        ("C:/data", "C:/data"),
    ],
)
def test_a_url_is_a_place_in_object_storage_and_all_else_one_of_the_disk(
    text: str | Path, shown: str
) -> None:
    assert str(place(text)) == shown
    assert isinstance(place(text), Remote) == ("://" in shown)


def test_parts_are_those_of_a_path() -> None:
    at = place("s3://shop/log") / "events" / "a.csv.gz"
    assert isinstance(at, Remote)
    assert (at.name, at.stem, at.suffix, str(at.parent)) == (
        *("a.csv.gz", "a.csv", ".gz"),
        "s3://shop/log/events",
    )
    assert at == place("s3://shop/log/events/a.csv.gz") and len({at, at.parent / at.name}) == 1
    with pytest.raises(DataError, match=r"s3://shop/log/events/a.csv.gz is in object storage"):
        on_disk(at)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA123:s3cr3t@shop/log",
        "s3://shop/log?X-Amz-Signature=s3cr3t",
        "https://shop.example/log?sig=s3cr3t",
        "ftp://me:s3cr3t@shop.example/log",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        place(url)
    assert "credentials" in str(refused.value)
    assert "s3cr3t" not in str(refused.value) and "AKIA123" not in str(refused.value)


def test_what_the_environment_keeps_secret_is_in_no_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t/key")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA123")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=abc==;")
    monkeypatch.setenv("PGPASSWORD", "")
    text = "AKIA123 may not,\n s3cr3t/key ?X-Amz-Signature=f00&a=b AccountKey=abc==; end"
    assert scrubbed(text) == "*** may not, *** ?X-Amz-Signature=***&a=b *** end"
