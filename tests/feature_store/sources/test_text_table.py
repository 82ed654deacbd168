"""Delimited text: exact lines, whatever the blocks, and every line a row, blank, or named."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import DataError
from feature_store.sources.base import BadRow
from feature_store.sources.files import Files, open_binary
from feature_store.sources.text_table import TextFormat, read_text

PLAIN = TextFormat(("a", "b"), delimiter="::")
CSV = TextFormat(("a", "b"), header=True, quoted=True)


def read(
    content: bytes, layout: TextFormat, block: int = 1 << 20
) -> tuple[dict[int, tuple[str, ...]], list[BadRow]]:
    rows, bad = {}, []
    for chunk in read_text(io.BytesIO(content), "f", layout, block_bytes=block):
        values = zip(*(chunk.table[name].to_pylist() for name in layout.columns), strict=True)
        rows.update(zip(chunk.lines.tolist(), values, strict=True))
        bad += chunk.bad
    return rows, bad


def test_rows_keep_their_lines_across_blanks_crlf_and_bad_rows() -> None:
    rows, bad = read(b"1::2\r\n\r\n3\n4::5::6\n7::8:9\n", PLAIN)
    assert rows == {1: ("1", "2"), 5: ("7", "8:9")}
    assert [(b.line, b.reason, b.raw) for b in bad] == [
        (3, "1 columns instead of 2", "3"),
        (4, "3 columns instead of 2", "4::5::6"),
    ]


def test_a_last_line_without_newline_is_named_unless_the_format_allows_it() -> None:
    rows, bad = read(b"1::2\n3::4", PLAIN)
    assert rows == {1: ("1", "2")} and bad[0].line == 2 and "truncated" in bad[0].reason
    rows, bad = read(b"1::2\n3::4", replace(PLAIN, final_newline=False))
    assert rows == {1: ("1", "2"), 2: ("3", "4")} and not bad


def test_lines_that_do_not_decode_are_named_and_the_replacement_mark_is_no_error() -> None:
    rows, bad = read("1::\ufffd\n".encode() + b"2::\xe9\n3::c\n", PLAIN)
    assert rows == {1: ("1", "\ufffd"), 3: ("3", "c")}
    assert [(b.line, b.reason, b.raw) for b in bad] == [(2, "is not utf-8", "2::\\xe9")]
    rows, bad = read(b"2::\xe9\n", replace(PLAIN, encoding="latin-1"))
    assert rows == {1: ("2", "é")} and not bad


def test_quotes() -> None:
    rows, bad = read(
        b'\xef\xbb\xbfb,x,"a"\n"1,5",,"say ""hi"""\n2,"x,y\n"3"z,,4\n5,,"6\n7"\n8,,9\n', CSV
    )
    assert rows == {2: ('say "hi"', "1,5"), 7: ("9", "8")}
    assert [b.line for b in bad] == [3, 4, 5, 6]
    assert bad[0].raw == '2,"x,y' and "not closed" in bad[0].reason
    assert "broken quotes" in bad[1].reason


def test_escaped_quotes() -> None:
    layout = TextFormat(("a", "b"), ";", "latin-1", quoted=True, escape="\\")
    assert read(b'"x \\"y\\"";"1"\r\n', layout)[0] == {1: ('x "y"', "1")}


@pytest.mark.parametrize("block", [1 << 20, 13])
def test_a_lone_line_feed_is_part_of_a_value_where_lines_end_with_both(block: int) -> None:
    layout = TextFormat(("a", "b"), quoted=True, line_end="\r\n")
    rows, bad = read(b'"1\n2",3\r\n4,5\r\n6\n7,8\r\n', layout, block)
    assert rows == {1: ("1\n2", "3"), 2: ("4", "5"), 3: ("6\n7", "8")} and not bad


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f: the file is empty"),
        (b"a,c\n1,2\n", "f:1: no column 'b' in the header: a, c"),
        (b"a,b,a\n1,2,3\n", "f:1: the header names 'a' more than once"),
        (b"a,b\r1,2\r3,4\r", "f: its lines end with a carriage return alone"),
        (b'"a",b\r1,2\n', "f: its header cannot be read"),
        ("a,b\n1,2\n".encode("utf-16"), "f is not utf-8: it begins as UTF-16 does.*save it as"),
        ("a,b\n1,2\n".encode("utf-16-le"), "f is not utf-8: .* or with NUL bytes"),
    ],
)
def test_files_beyond_repair(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(content, CSV)


def test_lines_that_hold_what_no_text_does_are_named() -> None:
    rows, bad = read(b"1::2\n3\0::4\n5\r::6\n7::8\r\n", PLAIN)
    assert rows == {1: ("1", "2"), 4: ("7", "8")}
    assert [(b.line, b.reason) for b in bad] == [
        (2, "holds a NUL byte"),
        (3, "holds a carriage return that ends no line"),
    ]
    rows, bad = read(b'a,b\n"1\r",2\n3\r,4\n', CSV)
    assert rows == {2: ("1\r", "2")} and [b.line for b in bad] == [3]  # in quotes it is a value


def test_blank_lines_may_stand_before_a_header() -> None:
    assert read(b"\n\r\na,b\n1,2\n", CSV) == ({4: ("1", "2")}, [])


def test_a_line_of_more_than_the_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_store.sources.text_table.LONGEST_LINE", 10)
    rows, bad = read(b"1::2\n" + b"3" * 8 + b"::4\n", PLAIN)
    assert rows == {1: ("1", "2")} and [b.line for b in bad] == [2]


def test_values_in_quotes_may_be_long() -> None:
    long = "x" * 200_000  # more than csv takes if it is not told
    assert read(f'a,b\n"{long}",2\n'.encode(), CSV)[0] == {2: (long, "2")}


def test_a_file_without_lines_does_not_fill_the_memory() -> None:
    with pytest.raises(DataError, match="is it text"):
        read(b"x" * 10_000, PLAIN, block=1000)


def test_folders_zips_and_gzips_hold_the_same_rows(tmp_path: Path) -> None:
    import gzip

    content = b"".join(b"%d::x\n" % n for n in range(5000))
    (tmp_path / "f.dat").write_bytes(content)
    (tmp_path / "f.dat.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(tmp_path / "f.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/f.dat", content)
    with Files(tmp_path).open("f.dat") as stream:
        assert stream.read() == content
    with Files(tmp_path / "f.zip").open("f.dat") as stream:
        assert stream.read() == content
    with open_binary(tmp_path / "f.dat.gz") as stream:
        assert stream.read() == content


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_truncated_archives_are_one_line_errors(tmp_path: Path, keep: float) -> None:
    import gzip
    import random

    content = bytes(random.Random(0).choices(b"0123456789\n", k=20_000))
    with zipfile.ZipFile(tmp_path / "f.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("f.dat", content)
    whole = (tmp_path / "f.zip").read_bytes()
    (tmp_path / "f.zip").write_bytes(whole[: int(len(whole) * keep)])
    packed = gzip.compress(content)
    (tmp_path / "f.dat.gz").write_bytes(packed[: int(len(packed) * keep)])
    with pytest.raises(DataError, match="fetch it again") as caught:
        Files(tmp_path / "f.zip")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="fetch it again"), open_binary(tmp_path / "f.dat.gz") as s:
        s.read()


@pytest.mark.parametrize("packed", ["zip", "gz"])
def test_what_grows_without_end_is_no_log(
    tmp_path: Path, packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    content = b"1::2\n" * 200_000  # packed 400-fold
    path = tmp_path / f"f.dat.{packed}"
    if packed == "gz":
        path.write_bytes(gzip.compress(content))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("f.dat", content)

    def read_all() -> int:
        opened = open_binary(path) if packed == "gz" else Files(path).open("f.dat")
        with opened as stream:
            return sum(chunk.num_rows for chunk in read_text(stream, "f", PLAIN, block_bytes=4096))

    assert read_all() == 200_000  # a small file may
    monkeypatch.setattr("feature_store.sources.files._GROWTH_FROM", 1000)
    with pytest.raises(DataError, match=r"f\.dat.* grows more than 100-fold.*unpack it yourself"):
        read_all()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_altered_archives_are_read_or_refused(tmp_path: Path, method: int) -> None:
    import random

    with zipfile.ZipFile(tmp_path / "f.zip", "w", method) as archive:
        archive.writestr("f.dat", bytes(random.Random(0).choices(b"0123456789\n", k=3000)))
    whole, refused = (tmp_path / "f.zip").read_bytes(), 0
    for seed in range(200):
        chosen = random.Random(seed)
        altered = bytearray(whole)
        for _ in range(chosen.choice([1, 3, 20])):
            altered[chosen.randrange(len(altered))] = chosen.randrange(256)
        (tmp_path / "f.zip").write_bytes(altered)
        try:
            with Files(tmp_path / "f.zip").open("f.dat") as stream:
                stream.read()
        except DataError as error:
            refused += "\n" not in str(error)
    assert refused > 50


def test_a_damaged_member_of_a_zip_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("f.dat", b"1::2\n" * 1000)
    damaged = bytearray((tmp_path / "f.zip").read_bytes())
    damaged[500] ^= 1
    (tmp_path / "f.zip").write_bytes(damaged)
    opened = Files(tmp_path / "f.zip").open("f.dat")
    with pytest.raises(DataError, match=r"f\.dat cannot be read"), opened as stream:
        list(read_text(stream, "f", PLAIN))


pieces = st.lists(
    st.sampled_from([b"1", b"::", b",", b'"', b"\n", b"\r\n", b"\r", b"\xff", b"\xc3\xa9", b" "]),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(pieces, st.sampled_from([PLAIN, replace(CSV, header=False)]), st.integers(1, 40))
def test_wild_bytes_read_the_same_in_blocks_of_any_size(
    parts: list[bytes], layout: TextFormat, block: int
) -> None:
    content = b"".join(parts)
    if not content or (b"\n" not in content and b"\r" in content.strip(b"\r")):
        return  # beyond repair
    rows, bad = read(content, layout)
    named = [b.line for b in bad]
    lines = [line.rstrip(b"\r") for line in content.split(b"\n")]
    full = [number for number, line in enumerate(lines, 1) if line]
    assert sorted([*rows, *named]) == full  # each line once, none lost
    try:
        assert read(content, layout, block) == (rows, bad)
    except DataError as error:
        assert "is it text" in str(error)
