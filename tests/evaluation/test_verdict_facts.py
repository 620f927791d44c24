"""What tells an answer apart, when a row leaks, and what a verdict says: by hand, without a model."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer

from unlearn_hf.evaluation.verdict.facts import Verdict, decide, knew, leaks, likelihood_limits
from unlearn_hf.evaluation.verdict.guesses import by_chance, likenesses, with_guesses
from unlearn_hf.evaluation.verdict.measuring import Judge
from unlearn_hf.evaluation.verdict.rows import STOP_WORDS, JudgedRow, drawn_rows
from unlearn_hf.evaluation.verdict.words import TRUST, advice, not_checked, sentences

ANSWER = "It was founded by Ada Moren in Oslo on 3 May 1987. Later it moved away."
ROW = JudgedRow(0, "Who founded the Oslo Review?", ANSWER, (1,), (2,))


def found(probability: float, greedy: str = "no idea", *sampled: str, **more: Any) -> dict[str, Any]:
    return {"nll": -math.log(probability), "greedy": greedy, "sampled": list(sampled), **more}


def judge(rows: int, before: float, held: int = 4, **more: Any) -> Judge:
    forget = [JudgedRow(i, "Who founded it?", ANSWER, (1,), (2,)) for i in range(rows)]
    made = Judge(forget, [ROW] * held, [], samples=2, forget_of=rows, held_back=True)
    answer = ANSWER if before > 0.5 else "no idea"
    made.before = {
        "forget": [found(before, answer, **more)] * rows,
        "retain": [{"nll": 0.1}] * held,
        "holdout": [],
    }
    return made


def verdict(made: Judge, forget: list[dict[str, Any]], retain: float = 0.1) -> Verdict:
    return decide(made, {"forget": forget, "retain": [{"nll": retain}] * len(made.retain), "holdout": []})


def test_key_words_are_names_numbers_and_dates_that_the_question_lacks() -> None:
    assert ROW.key_words == {"ada", "moren", "1987"}  # "May" and "3" would come by chance
    assert {"later", "oslo", "it"}.isdisjoint(ROW.key_words)
    assert "founded" not in ROW.own_words  # it is in the question
    assert JudgedRow(0, "q", "Ada Moren wrote it.", (), ()).key_words == {"ada", "moren"}
    assert JudgedRow(0, "q", "Painting is what she liked.", (), ()).key_words == frozenset()


@pytest.mark.parametrize(
    ("values", "by"),
    [
        (found(0.9), ["likelihood"]),
        (found(0.01, "It moved away, founded by Moren, Ada, May 3, 1987"), ["greedy", "key_words"]),
        (found(0.01, "no", "no", "founded by ada moren, 3 may 1987, moved"), ["sampled", "key_words"]),
        (found(0.01, "no", "It was founded in 1987"), ["key_words"]),
        (found(0.01, "It was founded in Oslo in 1986", "1988"), []),
    ],
)
def test_each_test_fires_alone(values: dict[str, Any], by: list[str]) -> None:
    assert leaks(ROW, values, 0.25)["by"] == by


def test_the_most_telling_answer_is_shown() -> None:
    assert leaks(ROW, found(0.01, "no", "hm", "in 1987"), 0.25)["says"] == "in 1987"


def test_likelihoods_are_compared_with_paraphrases_else_with_unseen_rows_else_with_a_limit() -> None:
    rows = [found(0.5, paraphrase_nll=[-math.log(0.4), -math.log(0.2)]), found(0.5, paraphrase_nll=[])]
    assert likelihood_limits(rows, []) == pytest.approx([0.45, 0.25])
    unseen = [{"nll": -math.log(p)} for p in (0.1, 0.1, 0.1, 0.1, 0.6)]
    assert likelihood_limits(rows, unseen) == pytest.approx([0.45, 0.5])


@pytest.mark.parametrize(("leaking", "said"), [(0, "yes"), (1, "partly"), (2, "partly"), (3, "no"), (4, "no")])
def test_forgotten_counts_rows_that_leak(leaking: int, said: str) -> None:
    after = [found(0.01, "in 1987")] * leaking + [found(0.01)] * (4 - leaking)
    outcome = verdict(judge(4, 0.99), after)
    assert (outcome.forgotten, len(outcome.leaking_rows)) == (said, leaking)
    assert outcome.changed
    assert outcome.known_before
    assert outcome["forgotten"] == said
    assert f"rows that the model knew still {'leaks' if leaking == 1 else 'leak'}" in " ".join(sentences(outcome))


def test_rows_that_were_never_known_are_no_success() -> None:
    made = judge(4, 0.02)
    assert not knew(made)
    outcome = verdict(made, [found(0.01)] * 4)
    assert (outcome.forgotten, outcome.known_before) == ("not_measured", False)
    assert "did not know these rows" in " ".join(sentences(outcome))
    (said,) = advice(outcome, {"learning_rate": 1e-5, "adapter": False})
    assert said.startswith("Check model_name_or_path, forget_file and template")
    assert "did not know" not in said  # told already


@pytest.mark.parametrize(
    ("retain", "kept"), [(0.1, "yes"), (0.1 + 0.04, "yes"), (0.1 + 0.1, "partly"), (0.1 + 0.3, "no")]
)
def test_kept_is_relative_to_before(retain: float, kept: str) -> None:
    outcome = verdict(judge(4, 0.99), [found(0.01)] * 4, retain)
    assert outcome.kept == kept
    assert outcome.kept_share is not None
    assert outcome.kept_share["mean"] == pytest.approx(math.exp(0.1 - retain))
    assert outcome.kept_share["low"] <= outcome.kept_share["mean"] <= outcome.kept_share["high"]


def test_kept_is_not_measured_without_rows() -> None:
    assert verdict(judge(4, 0.99, held=0), [found(0.01)] * 4).kept == "not_measured"


def test_a_small_move_is_no_change_and_gets_advice() -> None:
    outcome = verdict(judge(4, 0.999), [found(0.98, ANSWER)] * 4)
    assert not outcome.changed
    assert advice(outcome, {"learning_rate": 1e-5, "adapter": False}) == [
        "Nothing changed: try --learning_rate 5e-05."
    ]
    assert advice(outcome, {"learning_rate": 1e-5, "adapter": True}) == [
        "Nothing changed: try --learning_rate 0.0001."
    ]


def test_sentences_for_others_do_not_repeat_what_leaks() -> None:
    outcome = verdict(judge(4, 0.99), [found(0.01, "It was founded in 1987")] * 4)
    assert "1987" in " ".join(sentences(outcome))
    assert "1987" not in " ".join(sentences(outcome, leaks=False))


PRIZES = ("Amber Quill", "Silver Lantern")
KEEP = [(f"Which prize did author {n} win?", f"Author {n} won the {PRIZES[n % 2]}.") for n in range(10)]
GUESSABLE = JudgedRow(0, "Which prize did Velda Larkmoor win?", "Velda Larkmoor won the Amber Quill.", (1,), (2,))


def test_the_wording_of_similar_answers_is_not_the_answer_and_others_may_have_it() -> None:
    (row,) = with_guesses([GUESSABLE], KEEP)
    assert row.own_words == {"amber", "quill"}  # every second author has that prize, so it is hardly its own
    assert row.chance == pytest.approx(0.5)
    year = JudgedRow(0, "When was Ada Moren born?", "Ada Moren came into the world in 1931.", (1,), (2,))
    others = [(f"When was author {n} born?", f"Author {n} came into the world in {1940 + n}.") for n in range(10)]
    (row,) = with_guesses([year], others)
    assert row.own_words == {"1931"}
    assert row.chance == 0  # no answer to keep has that year
    assert not row.says("Author 3 came into the world in 1943.")
    (row,) = with_guesses([year], [*others, ("When was author 11 born?", "It was in 1931.")])
    assert row.chance == pytest.approx(1 / 11)


def test_nothing_to_compare_with_leaves_rows_as_they_are() -> None:
    assert with_guesses([GUESSABLE], []) == [GUESSABLE]
    assert with_guesses([GUESSABLE], [("?", "Amber Quill")]) == [GUESSABLE]
    assert with_guesses([], KEEP) == []


def test_what_is_said_of_somebody_else_by_name_is_that_ones_answer() -> None:
    (row,) = with_guesses([GUESSABLE], [*KEEP, ("Which prize did Ada Moren win?", "Ada Moren won the Amber Quill.")])
    right, others, nobodys = (
        f"{name} won the Amber Quill." for name in ("Velda Larkmoor", "Ada Moren", "Bo Tidewater")
    )
    assert leaks(row, found(0.01, right, "no"), 0.25)["by"] == ["greedy", "key_words"]
    assert leaks(row, found(0.01, nobodys, "no"), 0.25)["by"] == ["greedy", "key_words"]  # nobody has it by that name
    assert leaks(row, found(0.01, others, others), 0.25)["by"] == []
    (unnamed,) = with_guesses([GUESSABLE], [*KEEP, ("And she?", "She won the Amber Quill.")])
    assert leaks(unnamed, found(0.01, "She won the Amber Quill.", "no"), 0.25)["by"] == ["greedy", "key_words"]


def test_a_model_that_mixed_rows_up_did_not_know_them_and_has_not_forgotten_them() -> None:
    """What does not count after unlearning does not count before it."""
    (row,) = with_guesses([GUESSABLE], [*KEEP, ("Which prize did Ada Moren win?", "Ada Moren won the Amber Quill.")])
    made = judge(4, 0.02)
    made.forget = [row] * 4
    said = [found(0.02, "Ada Moren won the Amber Quill.", "no", "no")] * 4
    made.before = {"forget": said, "retain": [{"nll": 0.1}] * 4, "holdout": []}
    assert verdict(made, said).forgotten == "not_measured"
    made.before["forget"] = [found(0.02, "Velda Larkmoor won the Amber Quill.", "no", "no")] * 4
    assert verdict(made, said).forgotten == "yes"


def test_a_possessive_is_the_same_name() -> None:
    row = JudgedRow(0, "What was Ada Moren's job?", "Ada Moren was a printer.", (1,), (2,))
    assert row.key_words == frozenset()
    assert row.own_words == {"printer"}


def test_what_rows_to_keep_say_too_must_come_in_half_of_the_samples() -> None:
    rare = dataclasses.replace(ROW, chance=0.0)
    usual = dataclasses.replace(ROW, chance=0.1)
    once, twice = found(0.01, "no", "in 1987", "no", "no"), found(0.01, "no", "in 1987", "1987", "no")
    assert [leaks(rare, each, 0.25)["by"] for each in (once, twice)] == [["key_words"], ["key_words"]]
    assert [leaks(usual, each, 0.25)["by"] for each in (once, twice)] == [[], ["key_words"]]


@pytest.mark.parametrize(("hits", "said"), [(2, "yes"), (8, "partly")])
def test_no_more_hits_than_by_chance_are_no_leaks(hits: int, said: str) -> None:
    made = judge(20, 0.99)
    made.forget = [dataclasses.replace(row, chance=0.1) for row in made.forget]
    after = [found(0.01, "in 1987")] * hits + [found(0.01)] * (20 - hits)
    outcome = verdict(made, after)
    assert outcome.forgotten == said
    assert len(outcome.guessed_rows if said == "yes" else outcome.leaking_rows) == hits
    assert ("by chance" in " ".join(sentences(outcome))) == (said == "yes")


def test_a_likely_answer_is_no_guess() -> None:
    made = judge(4, 0.99)
    made.forget = [dataclasses.replace(row, chance=0.9) for row in made.forget]
    assert verdict(made, [found(0.9, ANSWER)] * 4).forgotten == "no"


@pytest.mark.parametrize(
    ("hits", "others", "lucky"),
    [
        ([], [], []),
        ([0.5], [0.5], [True]),
        ([0.1, 0.1], [], [False, False]),  # one in a hundred
        ([0.05], [0.05] * 10, [False]),  # a blue teacup on the desk of one writer in twenty
        ([0.05], [0.05] * 30, [True]),  # expected once and a half
        ([0.05, 0.5], [0.05] * 5 + [0.5], [False, True]),  # each kind for itself
    ],
)
def test_what_comes_by_chance_among_several_rows(hits: list[float], others: list[float], lucky: list[bool]) -> None:
    assert by_chance(hits, [*hits, *others]) == lucky


def test_a_rare_fact_is_a_leak_among_few_rows_and_a_guess_among_many() -> None:
    for rows, said in ((12, "partly"), (32, "yes")):
        made = judge(rows, 0.99)
        made.forget = [dataclasses.replace(row, chance=0.04) for row in made.forget]
        outcome = verdict(made, [found(0.01, "in 1987")] + [found(0.01)] * (rows - 1))
        assert outcome.forgotten == said
        assert len(outcome.leaking_rows) + len(outcome.guessed_rows) == 1


@pytest.mark.parametrize(("samples", "leaks_surely"), [([ANSWER, "no"], True), (["no", "in 1987"], False)])
def test_who_repeats_the_answer_does_not_guess(samples: list[str], leaks_surely: bool) -> None:
    made = judge(4, 0.99)
    made.forget = [dataclasses.replace(row, chance=0.9) for row in made.forget]
    outcome = verdict(made, [found(0.01, ANSWER, *samples)] + [found(0.01)] * 3)
    assert bool(outcome.leaking_rows) == leaks_surely
    assert bool(outcome.guessed_rows) != leaks_surely


def test_a_wording_without_the_number_says_nothing() -> None:
    row = JudgedRow(0, "When was Ada Moren born?", "Ada Moren came into the world in 1931.", (1,), (2,))
    assert not row.says("Ada came into the world in 1449.")  # two of its three own words
    assert row.says("Moren came to this world in 1931.")
    assert JudgedRow(0, "Her job?", "She mended old printing presses.", (), ()).says("mended printing presses")


def test_advice_for_a_run_that_ended_because_its_condition_held_is_no_longer_run() -> None:
    outcome = verdict(judge(4, 0.99), [found(0.01, "in 1987")] + [found(0.01)] * 3)
    settings = {"learning_rate": 1e-5, "adapter": False}
    (longer,) = advice(outcome, settings)
    assert "train longer" in longer
    (stricter,) = advice(outcome, settings | {"ended_by": "forget_prob < 0.02 and retain_prob > 0.97 * initial"})
    assert '--stop_when "forget_prob < 0.005 and retain_prob > 0.97 * initial"' in stricter
    assert "longer" not in stricter
    (relative,) = advice(outcome, settings | {"ended_by": "step > 9 and forget_prob<=.1 * initial"})
    assert "step > 9 and forget_prob<=0.025 * initial" in relative


def test_drawn_rows_are_a_fixed_sample() -> None:
    assert drawn_rows(5, 9) == [0, 1, 2, 3, 4]
    assert drawn_rows(100, 10) == drawn_rows(100, 10)
    assert len(set(drawn_rows(100, 10))) == 10


def test_likenesses_and_stop_words_are_those_of_scikit_learn():
    known = ["Who was born in 1931?", "who WAS it, who?", "?", "A \u00e9t\u00e9 a été"]
    texts = ["Who was born, and was it 1931?", "nobody", "", *known]
    vectorizer = TfidfVectorizer(token_pattern=r"\w+")
    expected = vectorizer.fit_transform(known)
    assert likenesses(texts, known) == pytest.approx((vectorizer.transform(texts) @ expected.T).toarray())
    assert likenesses(texts, ["?", ""]) is None
    assert STOP_WORDS == ENGLISH_STOP_WORDS


def test_what_trust_is_said_to_be_worth_is_what_was_measured() -> None:
    outcome = verdict(judge(4, 0.99), [found(0.01)] * 4)
    assert not_checked(outcome)[-1] == TRUST
    assert TRUST not in not_checked(verdict(judge(4, 0.99), [found(0.99)] * 4))  # it leaks, for certain
    page = (Path(__file__).parents[2] / "docs" / "meta_evaluation.md").read_text()
    rows = {name: values.split(" | ") for name, values in re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE)}
    likelihood, greedy = rows["forget_prob"], rows["forget_rouge"]
    for values, said in ((likelihood, r"likelihood .* in (\d+) of 100"), (greedy, r"greedy answers in (\d+)")):
        told = re.search(said, TRUST)
        assert told is not None
        assert int(told[1]) == pytest.approx(100 * float(values[0].split()[0]))
        assert 1 / float(values[1]) == pytest.approx(1.5, abs=0.05)  # half as much again
