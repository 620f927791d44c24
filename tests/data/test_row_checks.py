"""Rows that would train without an error and should not: in both sets, repeated, cut, or no text."""

from __future__ import annotations

import json
import warnings

import pytest
from datasets import Dataset

from tests.small_runs import RETAIN_SEED, build_trainer
from unlearn_hf.data.encoding import RowError, encode_dataset
from unlearn_hf.data.own_files import load_rows
from unlearn_hf.data.row_checks import check_overlap, warn_of_repeats
from unlearn_hf.data.templates import TEMPLATES


def encoded(*rows: list[int]) -> Dataset:
    return Dataset.from_dict({"input_ids": list(rows)})


def test_rows_in_both_sets_are_refused_or_told():
    forget, retain = encoded([1, 2], [3, 4], [5, 6], [3, 4]), encoded([9, 9], [3, 4], [5, 6, 7], [3, 4])
    message = r"2 of 4 rows are in retain_dataset too.*from 0: 1 and 1, 3 and 1\)"
    with pytest.raises(ValueError, match=message + r"; take them out of one set, or set allow_overlap"):
        check_overlap(forget, retain, allowed=False)
    with pytest.warns(UserWarning, match=message):
        check_overlap(forget, retain, allowed=True)


def test_long_lists_of_rows_are_cut_short():
    rows = encoded(*([number] for number in range(9)))
    with pytest.raises(ValueError, match=r"9 of 9 rows .* 4 and 4, \.\.\.\)"):
        check_overlap(rows, rows, allowed=False)


def test_rows_that_come_again_are_told():
    with pytest.warns(
        UserWarning, match=r"data: 2 of 4 rows come more than once.*from 0: 2 is 0 again, 3 is 0 again\)"
    ):
        warn_of_repeats(encoded([1, 2], [3], [1, 2], [1, 2]), "data")


def test_nothing_is_said_of_sound_rows():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_repeats(encoded([1, 2], [1], [2, 1]), "data")
        check_overlap(encoded([1, 2]), encoded([1, 2, 3], [2, 1]), allowed=False)


def test_a_trainer_refuses_what_is_in_both_sets(tmp_path):
    with pytest.raises(ValueError, match="12 of 12 rows are in retain_dataset too"):
        build_trainer("npo", tmp_path, forget_seed=RETAIN_SEED, retain=12, allow_overlap=False)
    with pytest.warns(UserWarning, match="each pulls both ways"):
        build_trainer("npo", tmp_path, forget_seed=RETAIN_SEED, retain=12, allow_overlap=True)


@pytest.mark.parametrize("row", [{"text": "Ada " * 200}, {"question": "Who?", "answer": "Ada " * 200}])
def test_what_is_cut_is_told(tokenizer, row):
    rows = [row, dict.fromkeys(row, "Ada")]
    whole = len(encode_dataset(rows, tokenizer, TEMPLATES["plain"], 10_000)[0]["input_ids"])
    with pytest.warns(
        UserWarning, match=rf"data: 1 of 2 rows .* max_length 20 .*: {whole - 20} tokens in all.* in row 0"
    ):
        encode_dataset(rows, tokenizer, TEMPLATES["plain"], 20, "data")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_dataset(rows, tokenizer, TEMPLATES["plain"], whole, "data")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Who?", "answer": "\ud800"}, "half of a surrogate pair"),
        ({"question": "Who?", "answer": 7}, "question and answer must be text"),
        ({"question": None, "answer": "Ada"}, "question and answer must be text"),
        ({"messages": [{"role": "robot", "content": "a"}, {"role": "assistant", "content": "b"}]}, "role 'robot'"),
    ],
)
def test_rows_in_memory_that_are_no_text(tokenizer, row, message):
    with pytest.raises(RowError, match=rf"data, row 0 \(from 0\): .*{message}"):
        encode_dataset([row], tokenizer, TEMPLATES["plain"], name="data")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a\ud800"}, r"line 1, column text: character 1 \('\\ud800'\) is half of a surrogate pair"),
        (
            {"messages": [{"role": "robot", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "line 1, column messages: the role 'robot' is none of system, user, assistant, tool",
        ),
    ],
)
def test_rows_in_files_that_are_no_text(tmp_path, row, message):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=message):
        load_rows(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"text": ' + "[" * 100_000])
def test_deeply_nested_files(tmp_path, text):
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        load_rows(tmp_path / "rows.jsonl")
