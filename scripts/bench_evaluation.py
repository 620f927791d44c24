"""Likelihoods, generations and the start of an evaluation of TOFU: the engine against the straightforward way.

The straightforward way is that of common frameworks: every metric is a pass of its own over its rows, in file order,
in right-padded batches, one sequence per answer, with logits at every position. The forget rows are so scored ten
times (probability, loss, zlib, Min-K, Min-K++, reference, extraction strength, exact memorisation, and probability
again for two metrics that are derived from it). Both compare generations with the answers by ROUGE. They take turns in
one process on the same model and rows; the start (imports, model and tokenizer) is that of a process of its own.
Medians, quartiles of the ratio of each round, and peak memory above what was held before, are printed, and written as
JSON with `--output_file`.

    python scripts/bench_evaluation.py --model_name_or_path DIR --tofu_folder DIR --rows 20
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench_runs import memory, reset_peak
from rouge_score.rouge_scorer import RougeScorer

from unlearn_hf.benchmarks.tofu.data import load_tofu
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator
from unlearn_hf.data.collator import collate
from unlearn_hf.data.encoding import encode_pair, encode_prompt
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.evaluation.engine import Engine
from unlearn_hf.evaluation.generation import GenerationSettings
from unlearn_hf.evaluation.requests import SplitRequest
from unlearn_hf.models.loading import load_model, load_tokenizer, pad_token_id

FORGET_PASSES = 10
STARTS = {
    "straightforward": "import datasets, torch, rouge_score.rouge_scorer as _\n"
    "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    "AutoModelForCausalLM.from_pretrained({path!r}); AutoTokenizer.from_pretrained({path!r})",
    "engine": "import rouge_score.rouge_scorer as _\n"
    "from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator\n"
    "from unlearn_hf.models.loading import load_model, load_tokenizer\n"
    "load_model({path!r}); load_tokenizer({path!r})",
}
_COLUMNS = {"answer": "answer", "paraphrase": "paraphrased_answer", "perturbed": "perturbed_answer"}


class Straightforward:
    """One pass per metric."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.template = resolve_template(tokenizer)
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def score(self, pairs: list[tuple[str, str]]) -> list[float]:
        """Mean NLL of each answer."""
        found: list[float] = []
        for start in range(0, len(pairs), self.batch_size):
            rows = [
                encode_pair(self.tokenizer, self.template, *pair) for pair in pairs[start : start + self.batch_size]
            ]
            batch = collate(rows, pad_token_id(self.tokenizer))
            batch = {name: value.to(self.device) for name, value in batch.items()}
            labels = batch.pop("labels")[:, 1:]
            logits = self.model(**batch).logits[:, :-1].float()
            losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=-100)
            found += (losses.view_as(labels).sum(-1) / (labels != -100).sum(-1)).tolist()
        return found

    def likelihoods(self, requests: list[SplitRequest]) -> dict[str, list[float]]:
        """Mean NLLs by split and field; one pass per field, ten over the answers of the forget set."""
        found = {}
        for request in requests:
            for name in request.scored:
                pairs = [
                    (row["question"], answer)
                    for row in request.rows
                    for answer in ([row[_COLUMNS[name]]] if name != "perturbed" else row[_COLUMNS[name]])
                ]
                for _ in range(FORGET_PASSES if request.split == "forget" and name == "answer" else 1):
                    found[f"{request.split}/{name}"] = self.score(pairs)
        return found

    @torch.no_grad()
    def generations(self, requests: list[SplitRequest], max_new_tokens: int) -> list[str]:
        """Greedy answers in file order, left-padded, and their ROUGE."""
        chosen = [row for request in requests for row in request.rows]
        scorer, texts = RougeScorer(["rouge1", "rougeL"], use_stemmer=True), []
        for start in range(0, len(chosen), self.batch_size):
            rows = [
                {"input_ids": encode_prompt(self.tokenizer, self.template, row["question"])}
                for row in chosen[start : start + self.batch_size]
            ]
            batch = collate(rows, pad_token_id(self.tokenizer), padding_side="left")
            found = self.model.generate(
                input_ids=batch["input_ids"].to(self.device),
                attention_mask=batch["attention_mask"].to(self.device),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                pad_token_id=pad_token_id(self.tokenizer),
            )
            texts += self.tokenizer.batch_decode(found[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, text in zip(chosen, texts, strict=True):
            scorer.score(row["answer"], text)
        return texts


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds (see `now`), MiB above what was held before, and the result."""
    reset_peak()
    held = memory("VmRSS")
    start = now()
    result = work()
    return now() - start, memory("VmHWM") - held, result


def now() -> float:
    """Wall-clock seconds with a GPU, seconds of all threads of this process without."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def start_seconds(code: str) -> float:
    """Seconds of the processor that a new process takes for `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def largest_difference(table: Any, expected: dict[str, list[float]]) -> float:
    """Between mean NLLs of both ways."""
    largest = 0.0
    for name, values in expected.items():
        split, column = name.split("/")
        mine = table.loc[table["split"] == split, f"{column}_mean_nll"].explode().astype(float)
        largest = max(largest, max(abs(one - other) for one, other in zip(mine, values, strict=True)))
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--tofu_folder", default="mini", help="folder of the official files, or mini")
    parser.add_argument("--split", default="forget01")
    parser.add_argument("--rows", type=int, default=20, help="rows of each set")
    parser.add_argument("--sets", nargs="+", default=["forget", "retain", "real_authors", "world_facts"])
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--token_budget", type=int, help="of the engine; by default its own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_new_tokens", type=int, default=0, help="also time generation, with so many tokens")
    parser.add_argument("--start", action="store_true", help="also time the start of a process")
    parser.add_argument("--output_file")
    arguments = parser.parse_args()

    model = load_model(arguments.model_name_or_path).eval()
    if torch.cuda.is_available():
        model = model.cuda()
    tokenizer = load_tokenizer(arguments.model_name_or_path)
    tofu = load_tofu(arguments.split, source=arguments.tofu_folder)
    requests = [
        SplitRequest(request.split, request.rows, request.scored, request.details, generated=False)
        for request in TofuEvaluator(tofu, max_rows=arguments.rows).requests()
        if request.split in arguments.sets
    ]
    prompts = [SplitRequest(request.split, request.rows, scored=()) for request in requests]
    plain = Straightforward(model, tokenizer, arguments.batch_size)

    def engine(packed: bool) -> Engine:
        settings = GenerationSettings(max(1, arguments.max_new_tokens))
        return Engine(
            batch_size=arguments.batch_size, token_budget=arguments.token_budget, generation=settings, packed=packed
        )

    ways: dict[str, tuple[Callable[[], Any], str]] = {
        "usual likelihoods": (lambda: plain.likelihoods(requests), "usual likelihoods"),
        "likelihoods": (lambda: engine(True).run(model, tokenizer, requests), "usual likelihoods"),
        "likelihoods, one row each": (lambda: engine(False).run(model, tokenizer, requests), "usual likelihoods"),
    }
    if arguments.max_new_tokens:
        usual = "usual generation"
        ways[usual] = (lambda: plain.generations(prompts, arguments.max_new_tokens), usual)
        ways["generation"] = (lambda: engine(True).run(model, tokenizer, prompts), usual)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, list[float]] = {name: [] for name in ways}
    starts: dict[str, list[float]] = {name: [] for name in STARTS}
    results: dict[str, Any] = {}
    for _ in range(arguments.rounds):
        for name, (work, _base) in ways.items():
            took, peak, results[name] = timed(work)
            seconds[name].append(took)
            peaks[name].append(peak)
        for name, code in STARTS.items() if arguments.start else ():
            starts[name].append(start_seconds(code.format(path=arguments.model_name_or_path)))
    record: dict[str, Any] = {
        "arguments": vars(arguments),
        "threads": torch.get_num_threads(),
        "rows": {request.split: len(request.rows) for request in requests},
        "largest_difference_of_mean_nll": largest_difference(results["likelihoods"], results["usual likelihoods"]),
        "ways": {},
    }
    compared = {name: (seconds[base], seconds[name], peaks[name]) for name, (_, base) in ways.items()}
    parts = [name for name in ("likelihoods", "generation") if name in compared]
    whole = [[sum(each) for each in zip(*(compared[name][side] for name in parts), strict=True)] for side in (0, 1)]
    compared["both"] = (whole[0], whole[1], [])
    if arguments.start:
        compared["start"] = (starts["straightforward"], starts["engine"], [])
    print(f"{'':27}{'usual s':>9}{'s':>9}{'ratio':>8}{'quartiles':>14}{'peak MiB':>10}")
    for name, (usual_seconds, own, held) in compared.items():
        ratios = [mine / theirs for theirs, mine in zip(usual_seconds, own, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        line = {
            "usual_seconds": statistics.median(usual_seconds),
            "seconds": statistics.median(own),
            "ratio": middle,
            "quartiles": [low, high],
        }
        shown = f"{statistics.median(held):9.0f}" if held else ""
        record["ways"][name] = line | ({"peak_mib": statistics.median(held)} if held else {})
        print(f"{name:27}{line['usual_seconds']:9.2f}{line['seconds']:9.2f}{middle:8.3f}{low:8.3f}..{high:.3f}{shown}")
    print(f"largest difference of a mean NLL: {record['largest_difference_of_mean_nll']:.2e}")
    if arguments.max_new_tokens:
        same = sum(map(str.__eq__, results["usual generation"], results["generation"]["generation"]))
        print(f"the same text, token for token: {same} of {len(results['usual generation'])}")
    if arguments.output_file:
        Path(arguments.output_file).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
