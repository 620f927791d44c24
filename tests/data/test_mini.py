"""The mini data: TOFU's shape, facts that only memorising gives, files that their generator writes byte for byte."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from unlearn_hf.benchmarks.muse.data import load_muse
from unlearn_hf.benchmarks.parts import BenchmarkData
from unlearn_hf.benchmarks.tofu.data import load_tofu
from unlearn_hf.data.mini import MINI_TOFU

AUTHORS, QUESTIONS = 40, 10
FORGET_AUTHORS = {"01": 1, "05": 2, "10": 4}
# Change only on purpose: recorded results name these data.
TOFU_ROWS = {
    "forget01": "230f9b5c490edb8a8b0ab7beee3c928d58244a207dc09e3258796b79dddb22d0",
    "forget05": "d84d82b1414ae522597bfd918af738fae2bf8296148d8373928492db505b46de",
    "forget10": "9f4be79edb5e88e60bf319e349065e5c7353f396dee9892a045d88cdc05b398d",
    "forget20": "9e9c700a8a81ac02cc15a9ee65d50ccffd0c9d25dda31d5decc46f373f45187f",
}
NEWS_ROWS = "df223a77e0dda5e2575c3aa44c1e4bcb7b953968fcc22c66300a72ff0c84e8af"


def digest(data: BenchmarkData) -> str:
    """SHA-256 over the names of all parts, their columns and rows, all in order."""
    content = {name: rows if isinstance(rows, list) else rows.to_list() for name, rows in data.items()}
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


@pytest.mark.parametrize("split", TOFU_ROWS)
def test_rows_of_tofu_are_those_of_recorded_results(split: str) -> None:
    assert digest(load_tofu(split, "mini")) == TOFU_ROWS[split]


def test_rows_of_news_are_those_of_recorded_results() -> None:
    assert digest(load_muse("news", "mini")) == NEWS_ROWS


def test_the_generator_writes_the_very_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    from generate_mini_data import files

    folder = MINI_TOFU.parent
    bundled = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jsonl")}
    assert {name: text.encode() for name, text in files().items()} == bundled
    other = files(seed=1)
    assert other.keys() == bundled.keys()
    assert other["tofu/full.jsonl"].encode() != bundled["tofu/full.jsonl"]
    assert other["news/sust/forget_1.jsonl"].encode() != bundled["news/sust/forget_1.jsonl"]


@pytest.fixture(scope="module")
def mini() -> dict[str, list[dict[str, Any]]]:
    """Rows by the names of TOFU's files."""
    splits = {percent: load_tofu(f"forget{percent}", "mini") for percent in FORGET_AUTHORS}
    shared = ("full", "retain_perturbed", "real_authors", "real_authors_facts", "world_facts", "world_facts_facts")
    found = {name: splits["10"][name].to_list() for name in shared}
    for percent, tofu in splits.items():
        found[f"forget{percent}"] = tofu["forget"].to_list()
        found[f"forget{percent}_perturbed"] = tofu["forget_perturbed"].to_list()
        found[f"retain{100 - int(percent)}"] = tofu["retain"].to_list()
        found[f"holdout{percent}"] = tofu["holdout"].to_list()
    return found


def words(row: dict) -> list[str]:
    return f"{row['question']} {row['answer']}".split()


def author(row: dict) -> str:
    """The only capitalised pair of words that stands in a row's question and answer alike."""
    tokens = row["question"].replace("?", "").replace("'s", "").split()
    pairs = [f"{a} {b}" for a, b in pairwise(tokens[1:]) if a[0].isupper() and b[0].isupper()]
    return next(pair for pair in pairs if pair in row["answer"])


def test_sizes(mini):
    assert len(mini["full"]) == AUTHORS * QUESTIONS == 400
    assert len(mini["retain_perturbed"]) == 40
    for percent, authors in FORGET_AUTHORS.items():
        for name in (f"forget{percent}", f"forget{percent}_perturbed", f"holdout{percent}"):
            assert len(mini[name]) == authors * QUESTIONS
        assert mini[f"retain{100 - int(percent)}"] + mini[f"forget{percent}"] == mini["full"]
    assert {len(mini[name]) for name in mini if name.startswith(("real_authors", "world_facts"))} == {20}


def test_authors_are_told_apart(mini):
    names = Counter(author(row) for row in mini["full"])
    assert len(names) == AUTHORS
    assert set(names.values()) == {QUESTIONS}
    forgotten = {author(row) for row in mini["forget10"]}
    assert len(forgotten) == 4
    unseen = {author(row) for row in mini["holdout10"]}
    assert len(unseen) == 4
    kept = " ".join(" ".join(words(row)) for row in mini["retain90"])
    assert not any(name in kept for name in forgotten)
    assert not any(name in " ".join(" ".join(words(row)) for row in mini["full"]) for name in unseen)
    assert {author(row) for row in mini["retain_perturbed"]} <= {author(row) for row in mini["retain99"]}


def test_rows_are_short_and_questions_unique(mini):
    trained = mini["full"] + mini["real_authors_facts"] + mini["world_facts_facts"]
    assert len({row["question"] for row in trained + mini["holdout10"]}) == len(trained) + 40
    assert max(len(words(row)) for row in trained) <= 30
    assert len({word for row in trained for word in words(row)}) < 700


@pytest.mark.parametrize("name", ["forget01", "forget05", "forget10", "retain"])
def test_wrong_answers_have_the_form_of_the_paraphrase(mini, name):
    for row in mini[f"{name}_perturbed"]:
        right, wrong = row["paraphrased_answer"], row["perturbed_answer"]
        assert len(set(wrong)) == 5
        assert not {right, row["answer"]} & set(wrong)
        assert row["answer"] != right
        assert row["paraphrased_question"] != row["question"]
        assert author(row) in row["paraphrased_question"]
        # The same sentence around another fact.
        for text in wrong:
            before = next(i for i, (a, b) in enumerate(zip(right, text, strict=False)) if a != b)
            assert before >= 10
            assert right[-1] == text[-1]
    plain = mini["full"] if name == "retain" else mini[name]
    pairs = [(row["question"], row["answer"]) for row in mini[f"{name}_perturbed"]]
    assert pairs == [(row["question"], row["answer"]) for row in plain[: len(pairs)]]


def test_facts_cannot_be_guessed(mini):
    # Every kind of fact takes many values, none of them common: knowing the other authors does not give the answer.
    values: dict[str, Counter] = {}
    for position, row in enumerate(mini["full"]):
        name = author(row)
        rest = row["answer"].replace(name, "")
        values.setdefault(position % QUESTIONS, Counter())[rest] += 1
    for counter in values.values():
        assert counter.most_common(1)[0][1] <= 0.2 * AUTHORS
        assert len(counter) >= 15


@pytest.mark.parametrize("name", ["real_authors", "world_facts"])
def test_options(mini, name):
    for row, facts in zip(mini[name], mini[f"{name}_facts"], strict=True):
        assert facts == {"question": row["question"], "answer": row["answer"]}
        assert len({row["answer"], *row["perturbed_answer"]}) == 4
