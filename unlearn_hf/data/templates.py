"""Prompt templates: how a question becomes a prompt and where the answer begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
SYSTEM_PROMPT = "You are a helpful assistant."
PINNED_DATE = "10 Apr 2025"  # templates that print the date would otherwise change every day


@dataclass(frozen=True)
class PromptTemplate:
    """A plain-text template.

    Attributes:
        name: the name used in configs.
        prompt: the prompt, with `{question}`.
        answer: the answer, with `{answer}`; what it adds before the answer is scored with it.
    """

    name: str
    prompt: str
    answer: str = "{answer}"

    def render(self, question: str | Sequence[Message], answer: str) -> tuple[str, str]:
        """Prompt and answer text; the tokenizer's special tokens are not in them."""
        text = question if isinstance(question, str) else "\n".join(message["content"] for message in question)
        return self.prompt.replace("{question}", text), self.answer.replace("{answer}", answer)


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's own chat template.

    Attributes:
        tokenizer: the tokenizer.
        system_prompt: put first when the template accepts a system message; `None` for none.
    """

    tokenizer: PreTrainedTokenizerBase
    system_prompt: str | None = SYSTEM_PROMPT
    name: str = "chat"

    def _apply(self, messages: list[dict[str, str]], generation: bool) -> str:
        return self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generation, date_string=PINNED_DATE
        )

    def render(self, question: str | Sequence[Message], answer: str) -> tuple[str, str]:
        """Prompt (up to the assistant's turn) and the rest: answer, end of turn, and what the template adds."""
        turns: list[Any] = [dict(message) for message in question] if not isinstance(question, str) else []
        turns = turns or [{"role": "user", "content": str(question)}]
        if self.system_prompt and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": self.system_prompt}, *turns]
        try:
            prompt = self._apply(turns, True)
        except Exception as problem:
            # Templates without a system role (Gemma's, say) raise jinja2's TemplateError.
            if type(problem).__name__ != "TemplateError" or turns[0]["role"] != "system":
                raise
            turns = turns[1:]
            prompt = self._apply(turns, True)
        whole = self._apply([*turns, {"role": "assistant", "content": answer}], False)
        if not whole.startswith(prompt):
            raise ValueError(
                "template: the chat template does not continue its own generation prompt with the answer, so the "
                f"answer cannot be told from the prompt; choose one of {', '.join(TEMPLATES)}."
            )
        return prompt, whole[len(prompt) :]


TEMPLATES: dict[str, PromptTemplate] = {
    template.name: template
    for template in (
        PromptTemplate("llama2", "[INST] {question} [/INST]"),
        PromptTemplate("phi", "Question: {question}\n", "Answer: {answer}"),
        PromptTemplate("question_answer", "Question: {question}\nAnswer: "),
        PromptTemplate("plain", "{question}"),
    )
}


def resolve_template(tokenizer: PreTrainedTokenizerBase, template: str = "auto") -> PromptTemplate | ChatTemplate:
    """Find a template by name; `auto` is the chat template when the tokenizer has one, else `question_answer`.

    Raises:
        ValueError: for an unknown name, or `chat` with a tokenizer that has no chat template.
    """
    has_chat = getattr(tokenizer, "chat_template", None) is not None
    if template == "chat" and not has_chat:
        raise ValueError("template: 'chat' needs a tokenizer with a chat template; choose 'question_answer'.")
    if template in ("auto", "chat") and has_chat:
        return ChatTemplate(tokenizer)
    if template == "auto":
        return TEMPLATES["question_answer"]
    if template not in TEMPLATES:
        raise ValueError(f"template: {template!r} is not known; choose one of auto, chat, {', '.join(TEMPLATES)}.")
    return TEMPLATES[template]
