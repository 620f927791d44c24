"""Prompt templates: how a question becomes a prompt and where the answer begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
Prompt = str | Sequence[Message]

SYSTEM_PROMPT = "You are a helpful assistant."
# Templates that print the date would otherwise change every day. They learn it as an argument, or ask for it through a
# function that no argument can replace; a macro of the same name can.
PINNED_DATE = "10 Apr 2025"
_PINNED_CLOCK = (
    "{% macro strftime_now(format) %}{{ format | replace('%d', '10') | replace('%b', 'Apr') | replace('%B', 'April')"
    " | replace('%m', '04') | replace('%Y', '2025') | replace('%A', 'Thursday') | replace('%H', '00')"
    " | replace('%M', '00') | replace('%S', '00') }}{% endmacro %}"
)


@dataclass(frozen=True)
class PromptTemplate:
    """A plain-text template.

    Attributes:
        name: the name used in configs.
        prompt_format: the prompt, with `{question}`.
        answer_format: the answer, with `{answer}`; what it adds before the answer is trained and scored with it.
    """

    name: str
    prompt_format: str
    answer_format: str = "{answer}"

    def prompt(self, question: Prompt) -> str:
        """The text before the answer.

        Earlier turns of a conversation come first, each answer followed by a blank line, as few-shot examples do.

        Raises:
            ValueError: for a turn whose role is not system, user or assistant.
        """
        if isinstance(question, str):
            return self.prompt_format.replace("{question}", question)
        text = ""
        for message in question:
            role, content = message["role"], message["content"]
            if role == "user":
                text += self.prompt_format.replace("{question}", content)
            elif role == "assistant":
                text += self.answer_format.replace("{answer}", content) + "\n\n"
            elif role == "system":
                text += content + "\n\n"
            else:
                raise ValueError(f"messages: the role {role!r} is not system, user or assistant.")
        return text

    def render(self, question: Prompt, answer: str) -> tuple[str, str]:
        """Prompt and answer text; the tokenizer's special tokens are not in them."""
        return self.prompt(question), self.answer_format.replace("{answer}", answer)

    def full(self, question: Prompt, answer: str) -> str:
        """Prompt and answer in one text."""
        return "".join(self.render(question, answer))


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's own chat template.

    Attributes:
        tokenizer: the tokenizer.
        system_prompt: put before conversations that have no system turn, unless the template refuses system turns
            (Gemma's does); `None` for none.
    """

    tokenizer: PreTrainedTokenizerBase
    system_prompt: str | None = SYSTEM_PROMPT
    name: str = "chat"

    def _apply(self, messages: Sequence[Message], generation: bool) -> str:
        chat_template = self.tokenizer.get_chat_template()
        text = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=generation,
            chat_template=_PINNED_CLOCK + chat_template if "strftime_now" in chat_template else chat_template,
            date_string=PINNED_DATE,
            enable_thinking=False,  # the data have no thoughts, so reasoning models are not to open a block of them
        )
        return str(text)

    def _turns(self, question: Prompt) -> Sequence[Message]:
        """The conversation in a form that the template accepts."""
        turns: Sequence[Message] = [{"role": "user", "content": question}] if isinstance(question, str) else question
        if turns[0]["role"] != "system" and self.system_prompt is None:
            return turns
        if turns[0]["role"] != "system":
            added = [{"role": "system", "content": str(self.system_prompt)}, *turns]
            return added if _renders(lambda: self._apply(added, True)) else turns
        if _renders(lambda: self._apply(turns, True)):
            return turns
        # The row brings its own system turn and the template has no place for one: it leads the user's turn.
        system, user, *rest = turns
        return [{"role": user["role"], "content": f"{system['content']}\n\n{user['content']}"}, *rest]

    def prompt(self, question: Prompt) -> str:
        """The text up to where the assistant's turn begins."""
        return self._apply(self._turns(question), True)

    def render(self, question: Prompt, answer: str) -> tuple[str, str]:
        """Prompt (up to the assistant's turn) and the rest: answer, end of turn, and what the template adds.

        Raises:
            ValueError: when the template does not continue its own generation prompt with the answer.
        """
        turns = self._turns(question)
        prompt = self._apply(turns, True)
        whole = self._apply([*turns, {"role": "assistant", "content": answer}], False)
        if not whole.startswith(prompt):
            raise ValueError(
                "template: the chat template does not continue its own generation prompt with the answer, so the "
                f"answer cannot be told from the prompt; choose one of {', '.join(TEMPLATES)}."
            )
        return prompt, whole[len(prompt) :]

    def full(self, question: Prompt, answer: str) -> str:
        """Prompt, answer, and what the template prints after it."""
        return "".join(self.render(question, answer))


def _renders(apply: Callable[[], str]) -> bool:
    from jinja2.exceptions import TemplateError

    try:
        apply()
    except TemplateError:
        return False
    return True


TEMPLATES: dict[str, PromptTemplate] = {
    template.name: template
    for template in (
        PromptTemplate("llama2", "[INST] {question} [/INST]"),  # TOFU's own; the answer follows without a space
        PromptTemplate("phi", "Question: {question}\n", "Answer: {answer}"),  # TOFU's own; "Answer:" is in the loss
        PromptTemplate("question_answer", "Question: {question}\nAnswer: "),  # open-unlearning's for base models
        PromptTemplate("plain", "{question}"),
        PromptTemplate("completion", "{question}", " {answer}"),  # LUME's: the text goes on after a space
    )
}


def resolve_template(
    tokenizer: PreTrainedTokenizerBase, template: str = "auto", system_prompt: str | None = SYSTEM_PROMPT
) -> PromptTemplate | ChatTemplate:
    """Find a template by name.

    Args:
        tokenizer: looked at for a chat template.
        template: `chat`, one of `TEMPLATES`, or `auto`: the chat template when the tokenizer has one, else
            `question_answer`.
        system_prompt: for chat templates; `None` for none.

    Raises:
        ValueError: for an unknown name, or `chat` with a tokenizer that has no chat template.
    """
    has_chat = getattr(tokenizer, "chat_template", None) is not None
    if template == "chat" and not has_chat:
        raise ValueError("template: 'chat' needs a tokenizer with a chat template; choose 'question_answer'.")
    if template in ("auto", "chat") and has_chat:
        return ChatTemplate(tokenizer, system_prompt)
    if template == "auto":
        return TEMPLATES["question_answer"]
    if template not in TEMPLATES:
        raise ValueError(f"template: {template!r} is not known; choose one of auto, chat, {', '.join(TEMPLATES)}.")
    return TEMPLATES[template]
