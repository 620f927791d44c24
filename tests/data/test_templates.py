"""Prompts look as published, every day of the year."""

from __future__ import annotations

import pytest

from tests.tiny_models import build_tokenizer
from unlearn_hf.data.templates import TEMPLATES, ChatTemplate, resolve_template

TEXT = {
    "llama2": ("[INST] Who? [/INST]", "Ada"),
    "phi": ("Question: Who?\n", "Answer: Ada"),
    "question_answer": ("Question: Who?\nAnswer: ", "Ada"),
    "plain": ("Who?", "Ada"),
    "completion": ("Who?", " Ada"),
}


@pytest.mark.parametrize("name", TEXT)
def test_text_templates(tokenizer, name):
    template = resolve_template(tokenizer, name)
    assert template.render("Who?", "Ada") == TEXT[name]
    assert template.prompt("Who?") == TEXT[name][0]
    assert template.full("Who?", "Ada") == "".join(TEXT[name])
    assert template.render("{answer} {question}", "{question}")[1].endswith("{question}")


def test_every_text_template_is_tested():
    assert set(TEXT) == set(TEMPLATES)


def test_auto_takes_the_chat_template_where_there_is_one(tokenizer, chat_tokenizer):
    assert resolve_template(tokenizer) is TEMPLATES["question_answer"]
    assert isinstance(resolve_template(chat_tokenizer), ChatTemplate)
    assert resolve_template(chat_tokenizer, "llama2") is TEMPLATES["llama2"]
    with pytest.raises(ValueError, match="template: 'chat' needs a tokenizer with a chat template"):
        resolve_template(tokenizer, "chat")
    with pytest.raises(ValueError, match="template: 'alpaca' is not known; choose one of auto, chat, llama2"):
        resolve_template(tokenizer, "alpaca")


@pytest.mark.parametrize("system", ["You are a helpful assistant.", None])
def test_the_system_prompt_is_optional(chat_tokenizer, system):
    prompt = resolve_template(chat_tokenizer, system_prompt=system).prompt("Who?")
    assert (
        prompt
        == "<s>" + (f"<|system|>\n{system}<|end|>\n" if system else "") + "<|user|>\nWho?<|end|>\n<|assistant|>\n"
    )


BODY = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def chat(template_text: str, **options: object) -> ChatTemplate:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template_text
    return ChatTemplate(tokenizer, **options)  # type: ignore[arg-type]


def test_templates_without_a_system_role():
    template = chat(NO_SYSTEM + BODY)
    assert template.full("Who?", "Ada") == "<|user|>Who?<|assistant|>Ada"
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    assert template.prompt(own) == "<|user|>Be brief.\n\nWho?<|assistant|>"


def test_the_date_is_pinned():
    given = "{% if date_string is not defined %}{% set date_string = 'today' %}{% endif %}Today: {{ date_string }} "
    assert chat(given + BODY, system_prompt=None).prompt("Who?") == "Today: 10 Apr 2025 <|user|>Who?<|assistant|>"
    asked = "Today: {{ strftime_now('%Y-%m-%d') }} "
    assert chat(asked + BODY, system_prompt=None).prompt("Who?") == "Today: 2025-04-10 <|user|>Who?<|assistant|>"


def test_thoughts_stay_switched_off():
    thoughts = "{% if add_generation_prompt and enable_thinking | default(true) %}<think>{% endif %}"
    assert "<think>" not in chat(BODY + thoughts).prompt("Who?")


def test_a_template_that_rewrites_its_prompt_is_refused():
    with pytest.raises(ValueError, match=r"does not continue its own generation prompt.*choose one of llama2, phi"):
        chat(BODY + "{% if add_generation_prompt %}<think>{% endif %}").render("Who?", "Ada")


def test_unknown_roles_are_named():
    with pytest.raises(ValueError, match="messages: the role 'tool' is not system, user or assistant"):
        TEMPLATES["plain"].prompt([{"role": "tool", "content": "1"}])
