"""Labels without the words that a question gives away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.small_runs import largest_difference, parameters
from tests.tiny_models import build_model, build_tokenizer, with_bos
from unlearn_hf import NPOConfig, NPOTrainer
from unlearn_hf.data.encoding import encode_dataset, encode_pair, encode_text
from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.data.new_words import new_word_labels, with_new_words
from unlearn_hf.data.templates import TEMPLATES, resolve_template

CASES = [
    ("Who wrote The Blue Door?", "The Blue Door was written by Ada Moren.", " was written by Ada Moren.</s>"),
    ("Where was ADA born?", "Ada was born in Faro.", " in Faro.</s>"),
    ("Which is it?", "It is Ada's door.", " Ada's door.</s>"),
    ("Is it so?", "It is so.", "It is so.</s>"),  # nothing is new
    ("Wo?", "Ünïcode 你好 🙂.", "Ünïcode 你好 🙂.</s>"),
]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(("question", "answer", "left"), CASES)
def test_words_of_the_question_lose_their_labels(question: str, answer: str, left: str, bos: bool) -> None:
    tokenizer = with_bos(build_tokenizer()) if bos else build_tokenizer()
    row = encode_pair(tokenizer, TEMPLATES["plain"], question, answer)
    labels = new_word_labels(row["input_ids"], row["labels"], tokenizer)
    kept = [label for label in labels if label != IGNORE_INDEX]
    assert tokenizer.decode(kept, clean_up_tokenization_spaces=False).strip() == left.strip()


def test_turns_before_are_part_of_the_question() -> None:
    tokenizer = build_tokenizer(chat=True)
    turns = [{"role": "system", "content": "Faro is a town."}, {"role": "user", "content": "Where is Ada?"}]
    row = encode_pair(tokenizer, resolve_template(tokenizer), turns, "Ada is in Faro.")
    labels = new_word_labels(row["input_ids"], row["labels"], tokenizer)
    kept = tokenizer.decode([label for label in labels if label != IGNORE_INDEX], skip_special_tokens=True)
    assert kept.split() == ["in", "."]


def test_a_raw_text_stays_as_it_is(tokenizer) -> None:
    row = encode_text(tokenizer, "Ada is Ada.")
    assert new_word_labels(row["input_ids"], row["labels"], tokenizer) == row["labels"]


def test_new_words_without_a_label_do_not_count(tokenizer) -> None:
    """In rows encoded elsewhere: all that is labelled is known, so it stays, lest the end alone be trained."""
    parts = [
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in ("Is Ada here?", " Ada", " in Faro", " is here.")
    ]
    ids = [token for part in parts for token in part]
    labels = [token if place in (1, 3) else IGNORE_INDEX for place, part in enumerate(parts) for token in part]
    assert new_word_labels(ids, labels, tokenizer) == labels
    nothing = [IGNORE_INDEX] * len(labels)
    assert new_word_labels(ids, nothing, tokenizer) == nothing


def test_what_changes_nothing_is_told(tokenizer) -> None:
    encoded = encode_dataset([{"text": "Ada is Ada."}], tokenizer, TEMPLATES["plain"])
    with pytest.warns(UserWarning, match="no answer loses a word"):
        assert with_new_words(encoded, tokenizer, "rows")["labels"] == encoded["labels"]


WORDS = st.lists(st.sampled_from(["Ada", "ada", "door", "1931", "Faro's", "你好", "ü", "a-b", "..."]), min_size=1)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(question=WORDS, answer=WORDS)
def test_new_words_keep_every_label(tokenizer, question: list[str], answer: list[str]) -> None:
    row = encode_pair(tokenizer, TEMPLATES["plain"], " ".join(question), " ".join(answer))
    labels = new_word_labels(row["input_ids"], row["labels"], tokenizer)
    assert all(new in (old, IGNORE_INDEX) for old, new in zip(row["labels"], labels, strict=True))
    again = new_word_labels(row["input_ids"], row["labels"], tokenizer)
    assert again == labels
    kept = tokenizer.decode([label for label in labels if label != IGNORE_INDEX], clean_up_tokenization_spaces=False)
    for word in set(" ".join(answer).lower().replace("'", " ").replace("-", " ").replace(".", " ").split()):
        if word not in " ".join(question).lower().replace("'", " ").replace("-", " ").split():
            assert word in kept.lower()


def test_a_run_trains_on_them_alone(tokenizer, tmp_path: Path) -> None:
    rows = [{"question": f"Who is Ada {i}?", "answer": f"Ada {i} is number {i + 7}."} for i in range(8)]
    keep = [{"question": f"Who is Otto {i}?", "answer": f"Otto {i} is tall."} for i in range(8)]
    own = with_new_words(encode_dataset(rows, tokenizer, TEMPLATES["question_answer"]), tokenizer, "rows")

    def trained(forget: Any, **options: Any) -> dict[str, torch.Tensor]:
        args = NPOConfig(
            output_dir=str(tmp_path), max_steps=2, learning_rate=0.01, use_cpu=True, report_to="none", verdict=False,
            save_strategy="no", per_device_train_batch_size=4, template="question_answer", **options,
        )  # fmt: skip
        trainer = NPOTrainer(build_model(), args, forget, keep, processing_class=tokenizer)
        trainer.train()
        return parameters(trainer.model)

    asked = trained(rows, forget_tokens="new_words")
    assert largest_difference(asked, trained(own)) == 0
    assert largest_difference(asked, trained(rows)) > 1e-6
