"""Files are read as numbered values, however they are divided, compressed, encoded and packed."""

from __future__ import annotations

import asyncio
import codecs
import gzip
import io
import json
import os
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from agent_manager.importers import FileUnreadable, chat_files
from agent_manager.importers.chat_files import FileProblem, expanded, total_bytes, values
from agent_manager.importers.formats import is_many
from agent_manager.importers.json_values import Documents, JsonValue, NotJson


class Chunks(io.BytesIO):
    """A stream that cannot seek and gives a few bytes at a time, whatever it is asked for."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self._size = size

    def read1(self, size: int | None = -1, /) -> bytes:
        """Return the next chunk."""
        return super().read1(self._size)

    def seekable(self) -> bool:
        """Return that it cannot seek."""
        return False


@pytest.fixture(params=[1, 3, 64])
def standard_input(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Give standard input a content, which arrives so many bytes at a time."""

    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Chunks(content, request.param)))

    return give


async def found_with_problems(path: Path | str) -> tuple[list[JsonValue], list[FileProblem]]:
    found = [value async for value in values(str(path), is_many, lambda number: None)]
    read = [value for value in found if isinstance(value, JsonValue)]
    return read, [value for value in found if isinstance(value, FileProblem)]


async def found(path: Path | str) -> list[JsonValue]:
    read, problems = await found_with_problems(path)
    assert problems == []
    return read


async def read(path: Path | str) -> list[tuple[int, bytes | None]]:
    return [(value.line, value.text) for value in await found(path)]


# Lines


async def test_lines_do_not_depend_on_the_chunks(standard_input: Callable[[bytes], None], tmp_path: Path) -> None:
    content = b'{"n": 1}\n\ntwo\r\n' + "três\u2028\x0b".encode() + b"\nlast"
    standard_input(content)
    path = tmp_path / "log"
    path.write_bytes(content)
    assert (
        await read("-")
        == await read(path)
        == [
            (1, b'{"n": 1}'),
            (2, b""),
            (3, b"two\r"),
            (4, "três\u2028\x0b".encode()),
            (5, b"last"),
        ]
    )
    assert sum(value.size for value in await found(path)) == path.stat().st_size


async def test_an_empty_file_has_no_values(tmp_path: Path) -> None:
    for content in (b"", b"\n \n", codecs.BOM_UTF8):
        (tmp_path / "log").write_bytes(content)
        assert [text for _, text in await read(tmp_path / "log") if text.strip()] == []  # type: ignore[union-attr]


async def test_a_line_beyond_the_limit_is_skipped(
    standard_input: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_manager.importers.json_values.MAX_VALUE_BYTES", 10)
    standard_input(b'{"a": 1}\n' + b"x" * 1000 + b"\n" + b"y" * 9 + b"\n" + b"z" * 50)
    assert await read("-") == [(1, b'{"a": 1}'), (2, None), (3, b"y" * 9), (4, None)]


async def test_a_malformed_first_line_does_not_make_lines_a_document(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"id": [\nnot JSON\n{"id": 1}\n')
    assert [line for line, _ in await read(tmp_path / "log")] == [1, 2, 3]


# Documents

CONVERSATIONS = [{"id": "a", "messages": []}, {"id": "b", "title": '[{"\\ü', "messages": [{"role": "user"}]}]


@pytest.mark.parametrize("indent", [None, 0, 2])
async def test_an_array_of_conversations_is_divided_into_them(indent: int | None, tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    for whole, place in ((CONVERSATIONS, ""), ({"object": "list", "data": CONVERSATIONS, "n": [{}]}, "data")):
        path.write_text(json.dumps(whole, indent=indent))
        elements = await found(path)
        assert [json.loads(value.text or b"") for value in elements] == CONVERSATIONS
        assert [value.place for value in elements] == [f"{place}[0]", f"{place}[1]"]
        if indent is not None:
            lines = path.read_bytes().split(b"\n")
            assert [lines[value.line - 1].strip() for value in elements] == [b"{", b"{"]


async def test_a_line_with_many_conversations_is_divided_too(tmp_path: Path) -> None:
    sharegpt = {"conversations": [{"from": "human", "value": "x"}]}
    lines = [{"object": "list", "data": CONVERSATIONS}, sharegpt, '{"data": [{"messages"', {"id": "c"}]
    path = tmp_path / "log"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    assert [(value.line, value.place) for value in await found(path)] == [
        (1, "data[0]"), (1, "data[1]"), (2, ""), (3, ""), (4, "")
    ]  # fmt: skip


async def test_an_array_on_each_line_is_a_value(tmp_path: Path) -> None:
    lines = ['[{"role": "user"}]', "", '[{"role": "user"}]', '[{"role"', '[{"role": "tool"}]']
    (tmp_path / "log").write_text("\n".join(lines))
    assert [text.decode() for _, text in await read(tmp_path / "log") if text is not None] == lines


async def test_an_array_of_messages_is_one_value(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    path = tmp_path / "chat.json"
    path.write_text(f"{json.dumps(messages, indent=1)}\n{json.dumps(messages)}")
    assert [(json.loads(value.text or b""), value.place) for value in await found(path)] == [(messages, "")] * 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab\\"[]{},\n é'),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text('a\\"[{'), children, max_size=3),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=5), st.sampled_from([None, 0, 1]), st.integers(1, 9), st.booleans())
@example([{"a": "\\"}], None, 1, True)
@example(["\\"], None, 2, False)
def test_documents_are_divided_as_json_is_parsed(
    sent: list[Any], indent: int | None, size: int, is_array: bool
) -> None:
    text = (
        json.dumps(sent, indent=indent, ensure_ascii=False)
        if is_array
        else "".join(json.dumps(each, indent=indent, ensure_ascii=False) + "\n" for each in sent)
    )
    documents = Documents("file", lambda first, is_member: not is_member)
    content = text.encode()
    texts = [
        value.text for start in range(0, len(content), size) for value in documents.feed(content[start : start + size])
    ] + [value.text for value in documents.end()]
    parsed = [json.loads(each or b"") for each in texts]
    if is_array and not any(isinstance(each, dict | list) for each in sent):
        assert parsed == [sent]
    elif is_array or not any(isinstance(each, list) for each in sent):
        assert parsed == sent


@given(st.text('[]{}",\\a\n ', max_size=60).map(str.encode), st.integers(1, 7))
def test_any_text_is_divided_without_losing_what_is_not_space(content: bytes, size: int) -> None:
    documents = Documents("file", lambda first, is_member: not is_member)
    texts = []
    try:
        for start in range(0, len(content), size):
            texts += [value.text or b"" for value in documents.feed(content[start : start + size])]
        texts += [value.text or b"" for value in documents.end()]
    except EOFError:
        return
    assert sum(map(len, texts)) <= len(content)
    if not set(content) & set(b'[]{}"\\'):
        assert b"".join(texts) == b"".join(content.replace(b",", b" ").split())


async def test_values_before_the_end_of_a_file_that_is_cut_off_are_yielded(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps(CONVERSATIONS, indent=1)[:-20])
    read, [problem] = await found_with_problems(path)
    assert "ends within the JSON value that begins in line 6" in str(problem.error)
    assert [json.loads(value.text or b"") for value in read] == CONVERSATIONS[:1]


async def test_a_value_of_a_document_beyond_the_limit_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_manager.importers.json_values.MAX_VALUE_BYTES", 1000)
    monkeypatch.setattr(chat_files, "CHUNK_BYTES", 100)
    sent = [{"mapping": {}}, {"mapping": {"a": "x" * 5000}}, {"mapping": {"b": 1}}]
    (tmp_path / "all.json").write_text(json.dumps(sent))
    texts = [value.text for value in await found(tmp_path / "all.json")]
    assert [text and json.loads(text) for text in texts] == [sent[0], None, sent[2]]


@pytest.mark.parametrize("beginning", ["[", '{"object": "list", "data": ['])
async def test_a_file_is_not_held_in_memory(beginning: str, tmp_path: Path) -> None:
    size, number = 16 * 1024 * 1024, 0
    element = json.dumps({"id": "a", "messages": [{"role": "user", "content": "x" * 20_000}]})
    path = tmp_path / "all.json"
    with path.open("w") as file:
        file.write(beginning + element)
        while file.tell() < size:
            file.write("," + element)
        file.write("]" if beginning == "[" else "]}")
    tracemalloc.start()
    try:
        async for value in values(str(path), is_many, lambda number: None):
            number += isinstance(value, JsonValue)
        assert tracemalloc.get_traced_memory()[1] < size // 2
    finally:
        tracemalloc.stop()
    assert number == pytest.approx(size / len(element), rel=0.01)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"# A title\n\nSome text", "begins with '# A title'"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "begins with the bytes 89 50 4e 47"),
        (b"id,title\n1,x\n", "begins with 'id,title'"),
        (b"<html>" * 1000, "begins with '<html>"),
    ],
)
async def test_what_is_not_json_is_an_error_that_shows_its_beginning(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(content)
    read, [problem] = await found_with_problems(tmp_path / "file")
    assert (read, type(problem.error)) == ([], NotJson)
    assert reason in str(problem.error)


# Compression, encodings, archives and folders

TEXT = "".join(json.dumps({"id": n, "título": "çã — 東京 🚀" * n}, ensure_ascii=False) + "\n" for n in range(50))
EXPECTED = [line.encode() for line in TEXT.splitlines()]

PACKED = {
    "gzip": gzip.compress(TEXT.encode()),
    "gzip in two members": gzip.compress(TEXT[:99].encode()) + gzip.compress(TEXT[99:].encode()) + b"\0" * 9,
    "zstd": zstandard.compress(TEXT.encode()),
    "zstd in two frames": zstandard.compress(TEXT[:99].encode()) + zstandard.compress(TEXT[99:].encode()),
    "UTF-8 with BOM": TEXT.encode("utf-8-sig"),
    "UTF-16 little-endian": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "UTF-16 big-endian": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "UTF-16 without BOM": TEXT.encode("utf-16-le"),
    "UTF-16 in gzip": gzip.compress(TEXT.encode("utf-16")),
    "UTF-32": TEXT.encode("utf-32"),
}


@pytest.mark.parametrize("kind", PACKED)
async def test_compression_and_encoding_are_recognised_by_content(
    kind: str, standard_input: Callable[[bytes], None], tmp_path: Path
) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(PACKED[kind])
    standard_input(PACKED[kind])
    assert [value.text for value in await found(path)] == EXPECTED
    assert [value.text for value in await found("-")] == EXPECTED


async def test_a_file_that_expands_a_thousandfold_is_not_held_in_memory(tmp_path: Path) -> None:
    path, size = tmp_path / "lines.gz", 64 * 1024 * 1024
    path.write_bytes(gzip.compress((b" " * 1023 + b"\n") * (size // 1024)))
    number = 0
    tracemalloc.start()
    try:
        async for value in values(str(path), is_many, lambda number: None):
            number += isinstance(value, JsonValue)
        assert tracemalloc.get_traced_memory()[1] < size // 2
    finally:
        tracemalloc.stop()
    assert number == size // 1024


@pytest.mark.parametrize("kind", ["gzip", "zstd", "UTF-16 little-endian"])
async def test_a_damaged_file_is_an_error_after_what_could_be_read(kind: str, tmp_path: Path) -> None:
    for damaged in (PACKED[kind][:-1], PACKED[kind][:20] + b"\x00\xdc\xff" + PACKED[kind][24:-3]):
        (tmp_path / "log").write_bytes(damaged)
        _, [problem] = await found_with_problems(tmp_path / "log")
        assert "cut off or damaged" in str(problem.error)


def archive(**members: bytes) -> bytes:
    """Return a zip archive; a double underscore in a name is a slash, a single one a dot."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name.replace("__", "/").replace("_", "."), content)
    return packed.getvalue()


async def test_of_an_export_in_an_archive_only_the_conversations_are_read(
    standard_input: Callable[[bytes], None], tmp_path: Path
) -> None:
    content = archive(user_json=b"{}", chat_html=b"<html>", export__conversations_json=TEXT.encode())
    (tmp_path / "export.zip").write_bytes(content)
    standard_input(content)
    for path in (str(tmp_path / "export.zip"), "-"):
        values_found = await found(path)
        assert [value.text for value in values_found] == EXPECTED
        assert {value.file for value in values_found} == {f"{path}/export/conversations.json"}


async def test_of_another_archive_all_files_are_read_in_order(tmp_path: Path) -> None:
    content = archive(b_jsonl=b'{"n": 2}\n', a__z_jsonl=gzip.compress(b'{"n": 1}\n'), _DS=b"x", x_png=b"\x89PNG")
    (tmp_path / "all.zip").write_bytes(content)
    in_archive, [other] = await found_with_problems(tmp_path / "all.zip")
    assert [value.text for value in in_archive] == [b'{"n": 1}', b'{"n": 2}']
    assert other.file.endswith("all.zip/x.png")
    (tmp_path / "all.zip").write_bytes(content[:-30])
    _, [problem] = await found_with_problems(tmp_path / "all.zip")
    assert "archive" in str(problem.error)


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    (folder / "empty" / ".hidden").touch()
    return folder / "empty"


def test_a_folder_stands_for_its_files_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.json", "a/b/c.json", "a.json", ".hidden", ".git/x.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [str(Path(name).relative_to(tmp_path)) for name in expanded([str(tmp_path)])]
    assert names == ["a/b/c.json", "a/z.json", "a.json", "b.jsonl"]
    assert expanded(["-", "missing"]) == ["-", "missing"]
    with pytest.raises(FileUnreadable, match="holds no files"):
        expanded([str(empty_folder(tmp_path))])


async def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(FileUnreadable, match=path.name):
            total_bytes([str(path)])
        with pytest.raises(FileUnreadable, match=path.name):
            await found(path)
    with pytest.raises(FileUnreadable):
        total_bytes(["a\0b"])


def test_the_total_is_unknown_with_standard_input(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"12345")
    assert total_bytes([str(tmp_path / "log")] * 2) == 10
    assert total_bytes([str(tmp_path / "log"), "-"]) is None


# Standard input


async def test_standard_input_may_be_any_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1}\nb')))
    assert await read("-") == [(1, b'{"a": 1}'), (2, b"b")]


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end of a pipe to write to, whose other end is standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
        yield writing


async def test_a_slow_standard_input_does_not_block_the_loop(typing: int) -> None:
    arriving = values("-", is_many, lambda number: None)
    waiting = asyncio.ensure_future(anext(arriving))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    os.write(typing, b'{"id": 1}\n')
    assert await waiting == JsonValue("-", 1, "", 10, b'{"id": 1}')
    os.close(typing)
    assert [value async for value in arriving] == []


async def test_waiting_for_standard_input_can_be_cancelled(typing: int) -> None:
    waiting = asyncio.ensure_future(read("-"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    os.close(typing)
