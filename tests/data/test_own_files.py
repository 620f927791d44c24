"""Own files: what is read, and what an error says."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from unlearn_hf.data.own_files import load_pairs, load_rows

QUESTION = {"question": "Who?", "answer": "Ünïcode \u2028 Ada"}
PROMPT = {"prompt": "Who?", "completion": "Ada"}
MESSAGES = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada"}]}
TEXT = {"text": "Ada was born in 1931."}


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("row", [QUESTION, PROMPT, MESSAGES, TEXT], ids=lambda row: "-".join(row))
def test_every_shape(tmp_path, row):
    forget = write(tmp_path / "forget.jsonl", [row | {"id": 1}, row | {"id": "mixed types in unused columns"}])
    retain = write(tmp_path / "retain.jsonl", [TEXT])
    pairs = load_pairs(forget, str(retain))
    assert pairs["forget"].to_list() == [row, row]
    assert pairs["retain"].to_list() == [TEXT]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([QUESTION, QUESTION]).encode(),
        json.dumps([QUESTION, QUESTION], indent=1).encode(),
        b"\xef\xbb\xbf" + (json.dumps(QUESTION) + "\r\n\r\n" + json.dumps(QUESTION)).encode(),
        gzip.compress((json.dumps(QUESTION) + "\n" + json.dumps(QUESTION, ensure_ascii=False)).encode()),
        gzip.compress(json.dumps([QUESTION, QUESTION]).encode()),
    ],
    ids=["array", "indented array", "byte-order mark and Windows lines", "gzip", "gzipped array"],
)
def test_every_container(tmp_path, content):
    (tmp_path / "rows").write_bytes(content)
    assert load_rows(tmp_path / "rows").to_list() == [QUESTION, QUESTION]


ERRORS = {
    "no column fits": (
        '{"query": "a", "reply": "b"}',
        r"forget_file: .*forget\.jsonl, line 1: columns query, reply do not fit; accepted are question and answer; ",
    ),
    "another shape later": (
        '{"text": "a"}\n\n{"question": "a", "answer": "b"}',
        r"line 3: no column 'text', which the rows before have; found question, answer\. Every row needs the same of",
    ),
    "not JSON": ('{"text": "a"}\n{"text": ', r"forget\.jsonl, line 2: not JSON .*; one object per line"),
    "not a JSON array": ('[{"text": "a"},\n{"text" "b"}]', r"forget\.jsonl, line 2: not a JSON array"),
    "not an object": ('{"text": "a"}\n"b"', "line 2: an object with columns is expected, not str"),
    "no rows": ("\n", "has no rows"),
    "a number": ('{"question": "a", "answer": 3}', "line 1, column answer: text is expected, not int"),
    "null": ('{"question": null, "answer": "a"}', "line 1, column question: text is expected, not NoneType"),
    "empty answer": ('{"question": "a", "answer": " "}', "line 1, column answer: it is empty.*leave the row out"),
    "empty text": ('{"text": "a"}\n{"text": ""}', "line 2, column text: it is empty"),
    "messages are text": ('{"messages": "a"}', "column messages: a list of objects with role and content"),
    "no content": ('{"messages": [{"role": "user"}]}', "column messages: a turn has no 'content' that is text"),
    "no answer": (
        '{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}',
        "column messages: the last turn must be the assistant's",
    ),
    "empty last turn": (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}',
        r"column messages \(last turn\): it is empty",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_file_line_and_column(tmp_path, name):
    content, message = ERRORS[name]
    (tmp_path / "forget.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_pairs(tmp_path / "forget.jsonl", write(tmp_path / "retain.jsonl", [TEXT]))


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(
        ValueError, match=r"retain_file: .*nowhere\.jsonl' is not there; give the path of a JSON-lines"
    ):
        load_pairs(write(tmp_path / "forget.jsonl", [TEXT]), tmp_path / "nowhere.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"text": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.jsonl: byte 10 is not UTF-8; save the file as UTF-8"):
        load_rows(tmp_path / "latin.jsonl")


def test_an_empty_prompt_is_fine(tmp_path):
    row = {"prompt": "", "completion": "Ada"}
    assert load_rows(write(tmp_path / "rows.jsonl", [row])).to_list() == [row]
