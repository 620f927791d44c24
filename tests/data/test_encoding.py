"""Labels sit on every character of the answer and nowhere else; BOS once, one end-of-sequence token."""

from __future__ import annotations

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.tiny_models import CHAT_TEMPLATE, build_tokenizer, with_bos
from unlearn_hf.data.encoding import (
    detect_columns,
    encode_dataset,
    encode_pair,
    encode_prompt,
    encode_text,
    special_prefix,
)
from unlearn_hf.data.templates import TEMPLATES, ChatTemplate, PromptTemplate, resolve_template

QUESTIONS = ["Who is the author?", "café naïve Ünïcode 你好 🙂", "[INST] Question: Answer:", "<|end|> in a question"]
ANSWERS = ["Ada Moren", '"Quoted" answers', "'tis", " leading space", "trailing space ", "Ünïcode 你好 🙂", "1931"]
SPACES = PromptTemplate("spaces", "{question}   ")


def labelled_text(tokenizer: PreTrainedTokenizerFast, row: dict[str, list[int]]) -> str:
    return tokenizer.decode([label for label in row["labels"] if label != -100], clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("template", [*TEMPLATES.values(), SPACES], ids=lambda template: template.name)
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_text_templates_label_the_whole_answer(tokenizer, template, question, answer):
    row = encode_pair(tokenizer, template, question, answer)
    before, after = template.render(question, answer)
    text = labelled_text(tokenizer, row)
    assert text.endswith(after + "</s>")
    # At most the token that straddles the boundary adds characters of the prompt.
    straddle = text[: -len(after + "</s>")]
    assert before.endswith(straddle)
    assert straddle == "" or "\ufffd" in straddle or len(straddle) <= 3
    assert tokenizer.decode(row["input_ids"], clean_up_tokenization_spaces=False) == before + after + "</s>"
    assert all(label in (-100, token) for token, label in zip(row["input_ids"], row["labels"], strict=True))
    assert row["labels"].count(tokenizer.eos_token_id) == 1  # pad is eos, yet the real one is learnt


def test_prompt_tokens_are_not_a_prefix_of_the_whole(tokenizer):
    # The trap itself: by counting the tokens of the prompt the first token of the answer would be lost.
    template = TEMPLATES["question_answer"]
    row = encode_pair(tokenizer, template, "Who?", "Ada Moren")
    counted = len(tokenizer(template.prompt("Who?"))["input_ids"])
    assert tokenizer(template.prompt("Who?"))["input_ids"] != row["input_ids"][:counted]
    assert row["labels"][counted - 1] != -100
    # Generation starts from what training has in front of the first labelled token.
    prompt = encode_prompt(tokenizer, template, "Who?")
    assert prompt == row["input_ids"][: len(prompt)]
    assert row["labels"][: len(prompt)] == [-100] * len(prompt)
    assert row["labels"][len(prompt)] != -100


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_chat_template_ends_with_the_end_of_turn(chat_tokenizer, question, answer):
    template = resolve_template(chat_tokenizer)
    row = encode_pair(chat_tokenizer, template, question, answer)
    assert isinstance(template, ChatTemplate)
    assert labelled_text(chat_tokenizer, row) == answer + "<|end|>"
    assert row["input_ids"][-1] == row["labels"][-1] == chat_tokenizer.eos_token_id  # the newline after it is left off
    assert row["input_ids"].count(chat_tokenizer.bos_token_id) == 1
    prompt = encode_prompt(chat_tokenizer, template, question)
    assert prompt == row["input_ids"][: len(prompt)]


CLOSINGS = {
    "mark that is not eos, then eos": ("<|user|>\n{eos}", "<|user|>"),
    "space, then eos": (" {eos}", " </s>"),
    "plain words": ("\nOver.\n", "</s>"),
    "nothing": ("", "</s>"),
}


@pytest.mark.parametrize("name", CLOSINGS)
@pytest.mark.parametrize("answer", ["Ada", "end", "Over."])
def test_chat_templates_close_the_turn_in_many_ways(name, answer):
    tokenizer = build_tokenizer()
    closing, expected = CLOSINGS[name]
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] | trim }}"
        + closing.replace("{eos}", "{{ eos_token }}")
        + "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    row = encode_pair(tokenizer, resolve_template(tokenizer), "Who?", answer)
    assert labelled_text(tokenizer, row).removeprefix(" ") == answer + expected
    assert row["labels"][-1] != -100


def test_bos_is_there_once_whoever_puts_it(tokenizer):
    text_template = TEMPLATES["llama2"]
    for chat_prints, tokenizer_adds, count in [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)]:
        own = build_tokenizer()
        own.chat_template = CHAT_TEMPLATE if chat_prints else CHAT_TEMPLATE.replace("{{ bos_token }}", "")
        if tokenizer_adds:
            with_bos(own)
        template = resolve_template(own)
        row = encode_pair(own, template, "Who?", "Ada")
        assert row["input_ids"].count(own.bos_token_id) == count
        assert encode_prompt(own, template, "Who?").count(own.bos_token_id) == count
        assert encode_pair(own, text_template, "Who?", "Ada")["input_ids"].count(own.bos_token_id) == tokenizer_adds
        assert row["labels"].count(own.bos_token_id) == 0
    assert special_prefix(tokenizer, "text") == []


def test_truncation_drops_the_end(tokenizer):
    whole = encode_pair(tokenizer, TEMPLATES["plain"], "Who?", "The author is Ada Moren")
    length = len(whole["input_ids"]) - 2
    cut = encode_pair(tokenizer, TEMPLATES["plain"], "Who?", "The author is Ada Moren", max_length=length)
    assert cut == {name: values[:length] for name, values in whole.items()}
    assert tokenizer.eos_token_id not in cut["labels"]
    with pytest.raises(ValueError, match=r"max_length: no answer token is left within 2 tokens of 'Who\?'"):
        encode_pair(tokenizer, TEMPLATES["plain"], "Who?", "Ada", max_length=2)


def test_an_empty_answer_is_its_end(tokenizer, chat_tokenizer):
    row = encode_pair(tokenizer, TEMPLATES["question_answer"], "Who?", "")
    assert tokenizer.decode([label for label in row["labels"] if label != -100]) == " </s>"
    row = encode_pair(chat_tokenizer, resolve_template(chat_tokenizer), "Who?", "")
    assert [label for label in row["labels"] if label != -100] == [chat_tokenizer.eos_token_id]


def test_raw_text_labels_all_but_bos():
    tokenizer = with_bos(build_tokenizer())
    row = encode_text(tokenizer, "Who is the author?", max_length=512)
    assert row["input_ids"][0] == tokenizer.bos_token_id
    assert row["labels"] == [-100, *row["input_ids"][1:]]
    assert row["labels"][-1] == tokenizer.eos_token_id
    with pytest.raises(ValueError, match="text: it is empty"):
        encode_text(tokenizer, "", max_length=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=st.text(max_size=30), answer=st.text(min_size=1, max_size=30))
def test_any_text_is_labelled_to_its_last_character(tokenizer, question, answer):
    row = encode_pair(tokenizer, TEMPLATES["question_answer"], question, answer)
    boundary = next(position for position, label in enumerate(row["labels"]) if label != -100)
    assert all(label != -100 for label in row["labels"][boundary:])
    # What is not labelled is prompt alone: no character of the answer goes unscored.
    unlabelled = tokenizer.decode(row["input_ids"][:boundary], clean_up_tokenization_spaces=False)
    assert TEMPLATES["question_answer"].prompt(question).startswith(unlabelled.rstrip("\ufffd"))


COLUMNS = [
    ({"question": "Who?", "answer": "Ada"}, ("question", "answer")),
    ({"prompt": "Who?", "completion": "Ada"}, ("prompt", "completion")),
    (
        {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada"}]},
        ("messages",),
    ),
]


@pytest.mark.parametrize(("row", "columns"), COLUMNS)
@pytest.mark.parametrize("kind", [list, Dataset.from_list])
def test_datasets_of_every_shape_encode_alike(tokenizer, row, columns, kind):
    template = TEMPLATES["question_answer"]
    assert detect_columns(list(row)) == columns
    encoded = encode_dataset(kind([row, row]), tokenizer, template)
    assert encoded.column_names == ["input_ids", "labels"]
    assert encoded[1] == encode_pair(tokenizer, template, "Who?", "Ada")
    assert encode_dataset(encoded, tokenizer, template) is encoded


def test_earlier_turns_are_the_prompt(tokenizer, chat_tokenizer):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Ada"},
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": "1931"},
    ]
    row = encode_dataset([{"messages": messages}], chat_tokenizer, resolve_template(chat_tokenizer))[0]
    assert labelled_text(chat_tokenizer, row) == "1931<|end|>"
    whole = chat_tokenizer.decode(row["input_ids"])
    assert "Be brief." in whole
    assert "You are a helpful assistant." not in whole
    row = encode_dataset([{"messages": messages}], tokenizer, TEMPLATES["question_answer"])[0]
    text = "Be brief.\n\nQuestion: Who?\nAnswer: Ada\n\nQuestion: When?\nAnswer: 1931</s>"
    assert tokenizer.decode(row["input_ids"]) == text


ERRORS = [
    ([{"query": "a", "reply": "b"}], "forget_dataset: columns query, reply do not fit; accepted are question and ans"),
    ([{"text": "a"}, {"text": ""}], r"forget_dataset, row 1 \(from 0\): text: it is empty"),
    (
        [{"messages": [{"role": "user", "content": "Who?"}]}],
        "row 0 .*: messages: the last turn must be the assistant's",
    ),
    ([{"question": "Who? " * 600, "answer": "Ada"}], "row 0 .*: max_length: no answer token is left within 512"),
    (DatasetDict({"train": Dataset.from_list([{"text": "a"}])}), r"a dict of splits \(train\); pass one of them"),
]


@pytest.mark.parametrize(("rows", "message"), ERRORS)
def test_bad_rows_are_named(tokenizer, rows, message):
    with pytest.raises(ValueError, match=message):
        encode_dataset(rows, tokenizer, TEMPLATES["question_answer"], name="forget_dataset")


def test_slow_tokenizers_are_refused(tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match=r"Slow gives no character offsets.*use a fast tokenizer"):
        encode_pair(Slow(), TEMPLATES["plain"], "Who?", "Ada")  # type: ignore[arg-type]


def test_encoding_is_cached_on_disk(tokenizer, tmp_path):
    Dataset.from_list([{"question": "Who?", "answer": "Ada"}]).save_to_disk(str(tmp_path / "rows"))
    first, again, other = (
        encode_dataset(Dataset.load_from_disk(str(tmp_path / "rows")), tokenizer, TEMPLATES[name])
        for name in ("plain", "plain", "llama2")
    )
    assert first.cache_files == again.cache_files != []
    assert first.cache_files != other.cache_files
    assert first[0] == again[0] != other[0]


def test_generation_starts_where_the_labels_start(tokenizer):
    """Whether or not the template's trailing space merges with the answer."""
    template = TEMPLATES["question_answer"]
    for answer in ("The author", "zz", '"Quoted"', "1931"):
        row = encode_pair(tokenizer, template, "Who?", answer)
        prompt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]
        assert prompt == encode_prompt(tokenizer, template, "Who?")
