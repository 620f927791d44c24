"""Continuing many prompts at once: texts that are done make room for others, and likely tokens are only checked.

Greedy decoding asks for one token after the other, each a pass through all weights. Where the next tokens can be
guessed (the answer of a model that has memorised it, a phrase that repeats), several tokens of the guess are checked
in a pass, and those are kept that greedy decoding would have given, so the text is the same and the passes are fewer
(Leviathan et al., Fast Inference from Transformers via Speculative Decoding, arXiv 2211.17192, with a guess instead of
a model).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unlearn_hf.evaluation.generation.decoding_cache import DecodingStep, KeyValueSlots, Layer, attention_in_slots

_NEW_TOKENS_PER_STEP = 4096
_SHORTEST_SHARED = 8
_FIRST_GUESS, _GROWTH = 6, 8
"""Tokens of the guess that are checked at first, and how many more for each that was right."""
_REPEATED, _LONGEST_GUESS = 3, 12
"""Tokens that must have occurred before, for what followed them to be guessed again; and the longest guess."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 0 takes the most likely token.
        top_p: share of probability that is drawn from, the most likely tokens first.
    """

    temperature: float = 0.0
    top_p: float = 1.0


@dataclass
class Text:
    """A text that is being continued.

    Attributes:
        prompt: its tokens.
        budget: most new tokens.
        guess: tokens that may come, in order.
        seed: of what is drawn.
        shared: leading tokens of the prompt whose keys and values are computed once for all texts that share them.
        generated: new tokens.
        done: whether it has ended.
    """

    prompt: list[int]
    budget: int
    guess: list[int] = field(default_factory=list)
    seed: str = ""
    shared: int = 0
    generated: list[int] = field(default_factory=list)
    done: bool = False

    def __post_init__(self) -> None:
        """Before the first step nothing is cached, and everything is to be fed."""
        self.cached = 0
        self.pending = list(self.prompt)
        self.random = random.Random(self.seed)
        self._as_guessed = True
        self._known = self.prompt + self.guess
        self._followers: dict[tuple[int, ...], int] = {}
        self._indexed = 0

    def next_guess(self) -> list[int]:
        """Tokens worth checking next: the guess while it is right, later what followed the last tokens before.

        A wrong token costs the arithmetic of a right one. So few are tried at first, and of a phrase that repeats half
        as many as have repeated.
        """
        done = len(self.generated)
        room = max(0, self.budget - done - 1)
        self._as_guessed = self._as_guessed and done < len(self.guess) and self.generated == self.guess[:done]
        if self._as_guessed:
            return self.guess[done : done + min(room, _GROWTH * done or _FIRST_GUESS)]
        history = self._known + self.generated
        for end in range(max(_REPEATED, self._indexed), len(history)):
            self._followers[tuple(history[end - _REPEATED : end])] = end
        self._indexed = len(history)
        start = self._followers.get(tuple(history[-_REPEATED:]))
        if start is None:
            return []
        before, last = history[:start][::-1], history[::-1]
        repeated = next((i for i, (a, b) in enumerate(zip(before, last, strict=False)) if a != b), len(before))
        return history[start : start + min(_LONGEST_GUESS, repeated // 2, room)]


class Decoder:
    """Runs a model over many texts.

    Args:
        model: a causal language model whose attention is SDPA or eager, in evaluation mode.
        device: of the model.
        ends: tokens that end a text.
        slots: texts at a time.
        sampling: how tokens are chosen.
        stop: whether a text is done, asked after each step with its new tokens.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        ends: Iterable[int],
        slots: int = 16,
        sampling: Sampling | None = None,
        stop: Callable[[list[int]], bool] | None = None,
    ) -> None:
        self.model, self.device, self.ends, self.slots = model, device, frozenset(ends), slots
        self.sampling = sampling or Sampling()
        self.stop = stop
        self._active: list[Text] = []
        self._prefix: tuple[list[int], dict[int, Layer]] = ([], {})

    def run(self, texts: Sequence[Text]) -> Iterator[Text]:
        """Continue all texts, in place, and give each when it and all before it are done.

        Args:
            texts: those that begin alike should follow each other.

        Raises:
            ValueError: when the model does not read slots; see `attention_in_slots`.
        """
        waiting, given = deque(texts), 0
        capacity = max((len(text.prompt) + text.budget for text in texts), default=0) + 1
        cache = KeyValueSlots(min(self.slots, len(texts)), capacity)
        self._active, self._prefix = [], ([], {})
        while waiting or self._active:
            with torch.no_grad(), attention_in_slots(self.model):
                self._admit(waiting, cache)
                self._step(cache)
            while given < len(texts) and texts[given].done:
                yield texts[given]
                given += 1

    @torch.no_grad()
    def agrees(self, prompt: list[int], half: bool = False) -> bool:
        """Whether the model says the same with slots as without, tried on one prompt in two passes.

        An architecture with an attention of its own, with recurrent layers or virtual tokens may not.

        Args:
            prompt: its tokens, at least one.
            half: whether the model computes in half precision.
        """
        tokens = (prompt * 4)[: max(4, len(prompt))]
        ids = torch.tensor([tokens], device=self.device)
        expected = self.model(input_ids=ids, use_cache=False).logits[0, -3:].float()
        text, cache = Text(tokens[:-2], 3), KeyValueSlots(1, len(tokens))
        try:
            with attention_in_slots(self.model):
                first = self._forward(cache, [text], [text.prompt], [len(tokens) - 3])
                text.cached = len(tokens) - 2
                found = torch.cat([first, self._forward(cache, [text], [tokens[-2:]], [0, 1])]).float()
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            return False  # the way in which an architecture says that it takes no such rows
        if found.shape != expected.shape:
            return False
        error = (found.log_softmax(-1).exp() - expected.log_softmax(-1).exp()).abs().max()
        return bool(error <= (0.05 if half else 1e-4))

    def _admit(self, waiting: deque[Text], cache: KeyValueSlots) -> None:
        """Give free slots to texts that wait, as long as a pass stays small."""
        new = 0
        while waiting and len(self._active) < cache.slots and new < _NEW_TOKENS_PER_STEP:
            text = waiting[0]
            prefix = text.prompt[: min(text.shared, len(text.prompt) - 1)]
            if prefix and prefix != self._prefix[0]:
                if self._active:
                    return  # the prefix is computed in a slot of its own, the first
                self._forward(cache, [Text(prefix, 1)], [prefix], keep=[])
                self._prefix = prefix, cache.read(0, len(prefix))
            waiting.popleft()
            if prefix:
                cache.write(len(self._active), self._prefix[1])
                text.cached, text.pending = len(prefix), text.prompt[len(prefix) :]
            self._active.append(text)
            new += len(text.pending) + min(len(text.guess), _FIRST_GUESS)
        if not waiting:
            cache.slots = len(self._active)

    def _step(self, cache: KeyValueSlots) -> None:
        """One pass: check guesses, choose tokens, let go of what is done."""
        greedy = self.sampling.temperature == 0
        guesses = [text.next_guess() if greedy else [] for text in self._active]
        fed = [text.pending + guess for text, guess in zip(self._active, guesses, strict=True)]
        keep: list[int] = []
        start = 0
        for text, tokens in zip(self._active, fed, strict=True):
            keep += range(start + len(text.pending) - 1, start + len(tokens))
            start += len(tokens)
        logits = self._forward(cache, self._active, fed, keep)
        # `argmax` gives the same and takes four times as long on a CPU.
        chosen = logits.max(-1).indices.tolist() if greedy else self._draw(logits.float())
        finished, at = [], 0
        for slot, (text, guess) in enumerate(zip(self._active, guesses, strict=True)):
            found = chosen[at : at + len(guess) + 1]
            at += len(guess) + 1
            accepted = next((i for i, token in enumerate(guess) if token != found[i]), len(guess))
            text.cached += len(text.pending) + accepted
            text.pending = [found[accepted]]
            self._take(text, found[: accepted + 1])
            if text.done:
                finished.append(slot)
        for slot in reversed(finished):
            # The last text takes the slot, so that those in use lie side by side.
            last = self._active.pop()
            if slot < len(self._active):
                cache.move(len(self._active), slot, last.cached)
                self._active[slot] = last

    def _take(self, text: Text, tokens: list[int]) -> None:
        """Add new tokens up to the end of the text."""
        for token in tokens:
            if token not in self.ends:
                text.generated.append(token)
            text.done = (
                token in self.ends
                or len(text.generated) == text.budget
                or (self.stop is not None and self.stop(text.generated))
            )
            if text.done:
                return

    def _forward(self, cache: KeyValueSlots, texts: list[Text], fed: list[list[int]], keep: list[int]) -> Tensor:
        """Logits `[len(keep), V]` at some of the tokens that are fed."""
        step = DecodingStep(cache, [text.cached for text in texts], [len(tokens) for tokens in fed], self.device)
        output = self.model(
            input_ids=torch.tensor([[token for tokens in fed for token in tokens]], device=self.device),
            position_ids=step.position[None],
            use_cache=False,
            logits_to_keep=torch.tensor(keep or [0], device=self.device),
            decoding=step,
        )
        return output.logits[0]

    def _draw(self, logits: Tensor) -> list[int]:
        """One token for each row of logits `[n, V]`, by the uniform number that its own text draws."""
        probabilities = (logits / self.sampling.temperature).softmax(-1)
        ordered, tokens = probabilities.sort(-1, descending=True)
        mass = ordered.cumsum(-1)
        # The token that crosses top_p still belongs to it.
        total = mass.masked_fill(mass - ordered >= self.sampling.top_p, 0.0).amax(-1)
        drawn = torch.tensor([text.random.random() for text in self._active], device=logits.device) * total
        places = torch.searchsorted(mass, drawn[:, None]).clamp(max=mass.shape[-1] - 1)
        return tokens.gather(-1, places).squeeze(-1).tolist()


def shared_beginning(prompts: Sequence[list[int]]) -> int:
    """Tokens that all prompts begin with and that are worth sharing; 0 for none, or a single prompt."""
    if len(prompts) < 2:
        return 0
    shortest, longest = min(prompts), max(prompts)  # in the order of the alphabet, so all others lie between
    same = next((i for i, (a, b) in enumerate(zip(shortest, longest, strict=False)) if a != b), min(map(len, prompts)))
    return same if same >= _SHORTEST_SHARED else 0
