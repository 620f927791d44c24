"""Two ways to share what rows begin with, and padded rows: processor seconds of the likelihoods and of a step.

*End to end* (`likelihood.packed_rows`) computes once what all rows of a batch begin with, a *tree*
(`evaluation.packed_scoring`) what any two of them do. The three give the same likelihoods, or this ends with an error.

    python scripts/bench_packing.py --model_name_or_path SMOLLM2 --tofu_folder TOFU
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unlearn_hf import load_tofu
from unlearn_hf.data.collator import collate
from unlearn_hf.data.encoding import encode_pair
from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.evaluation.packed_scoring import TextGroup, mask_for, pack
from unlearn_hf.evaluation.token_scores import ScoredText
from unlearn_hf.likelihood.answer_head import ask
from unlearn_hf.likelihood.answer_request import AnswerRequest
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.models.loading import load_model, load_tokenizer

Row = dict[str, list[int]]


def tree_nll(model: Any, groups: list[list[Row]]) -> Tensor:
    """Sum of the NLLs of all answers, each group a tree of its own; a scalar."""
    trees = [
        TextGroup(tuple(ScoredText(f"{i}/{j}", row["input_ids"], row["labels"]) for j, row in enumerate(group)))
        for i, group in enumerate(groups)
    ]
    batch = pack(trees, 0)
    longest = batch["input_ids"].shape[1]
    answers = [
        (place * longest + node, label)
        for place, tree in enumerate(trees)
        for text, path in zip(tree.texts, tree.tree.paths, strict=True)
        for node, label in zip(path, text.labels[1:], strict=True)
        if label != IGNORE_INDEX
    ]
    batch["attention_mask"] = mask_for(model, batch["attention_mask"])
    request = AnswerRequest(
        torch.tensor([node for node, _ in answers]), longest, torch.tensor([label for _, label in answers])
    )
    found = ask(model, batch, request).token_nll
    assert found is not None
    return found.sum()


def batch_nll(model: Any, groups: list[list[Row]], packed: bool) -> Tensor:
    """The same, each group a batch of its own: padded, or its rows end to end."""
    return torch.stack(
        [answer_likelihood(model, collate(group, 0), packed=packed).nll.sum() for group in groups]
    ).sum()


def computed(model: Any, nll: Callable[[], Tensor], trains: bool) -> Tensor:
    """The sum of the NLLs, with its gradients where a step is measured."""
    model.zero_grad()
    with torch.set_grad_enabled(trains):
        value = nll()
    if trains:
        value.backward()
    return value.detach()


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """Median of the processor seconds of `work`, after one that warms up."""
    work()
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)


def main() -> None:
    """Measure three batches in three ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--tofu_folder", default="mini")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_model(arguments.model_name_or_path), load_tokenizer(arguments.model_name_or_path)
    template = resolve_template(tokenizer)
    questions = [
        [
            encode_pair(tokenizer, template, row["question"], answer)
            for answer in (row["answer"], row["paraphrased_answer"], *row["perturbed_answer"])
        ]
        for row in load_tofu("forget10", source=arguments.tofu_folder)["forget_perturbed"].select(
            range(arguments.rows)
        )
    ]
    draw = random.Random(0)
    texts = [[draw.randrange(10, len(tokenizer)) for _ in range(draw.randint(150, 500))] for _ in range(4)]
    apart = [{"input_ids": text, "labels": [IGNORE_INDEX, *text[1:]]} for text in texts]
    print(f"{'batch':44}{'padded':>9}{'end to end':>12}{'tree':>8}")
    for name, groups, trains in (
        (f"scoring {len(questions)} questions, {len(questions[0])} answers each", questions, False),
        (f"a step on {len(questions)} rows", [[row for row, *_ in questions]], True),
        (f"a step on {len(apart)} rows with nothing in common", [apart], True),
    ):
        model.train(trains)
        ways = {
            "padded": partial(batch_nll, model, groups, packed=False),
            "end to end": partial(batch_nll, model, groups, packed=True),
            "tree": partial(tree_nll, model, groups),
        }
        found = {way: computed(model, nll, trains) for way, nll in ways.items()}
        cost = {way: seconds(partial(computed, model, nll, trains), arguments.rounds) for way, nll in ways.items()}
        for value in found.values():
            torch.testing.assert_close(value, found["padded"], rtol=1e-4, atol=0.0)
        print(f"{name:44}{cost['padded']:9.2f}{cost['end to end']:12.2f}{cost['tree']:8.2f}", flush=True)


if __name__ == "__main__":
    main()
