"""The mini data: the shape of TOFU, facts that only memorising gives, the same on every machine."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise

import pytest

from unlearn_hf.benchmarks.base import content_fingerprint
from unlearn_hf.data.mini_source import AUTHORS, FORGET_AUTHORS, QUESTIONS, build_mini

# Changes only on purpose: recorded results name this data set.
FINGERPRINT = "d9d84c687f6121bede2b9956056202c5708066f0b790550b01f2c76d489a46de"


@pytest.fixture(scope="module")
def mini() -> dict:
    return build_mini()


def words(row: dict) -> list[str]:
    return f"{row['question']} {row['answer']}".split()


def author(row: dict) -> str:
    """The only capitalised pair of words that stands in a row's question and answer alike."""
    tokens = row["question"].replace("?", "").replace("'s", "").split()
    pairs = [f"{a} {b}" for a, b in pairwise(tokens[1:]) if a[0].isupper() and b[0].isupper()]
    return next(pair for pair in pairs if pair in row["answer"])


def test_same_on_every_machine(mini):
    assert content_fingerprint([mini]) == FINGERPRINT
    assert content_fingerprint([build_mini(1)]) != FINGERPRINT


def test_generation_takes_no_time():
    start = time.perf_counter()
    build_mini()
    assert time.perf_counter() - start < 1


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
    for row, facts, options in zip(mini[f"{name}_perturbed"], mini[f"{name}_facts"], mini[name], strict=True):
        assert facts == {"question": row["question"], "answer": row["answer"]}
        assert len({row["answer"], *row["perturbed_answer"]}) == 4
        assert {options[f"option{i}"] for i in range(1, 5)} == {row["answer"], *row["perturbed_answer"]}
