"""Memory and arithmetic of a step by a formula; `docs/scale.md` explains its terms, `tests/test_scale.py` checks it.

For more tokens or ranks: `python scripts/scale.py --tokens 8192 --ranks 32`. `--measure` holds the arithmetic against
seconds of real steps instead: of small random Llamas, on this machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Llama:
    """A shape: layers `l`, width `h`, width of keys `k`, of the inner layer `i`, vocabulary `V`, head tied or not."""

    layers: int
    width: int
    keys: int
    inner: int
    vocabulary: int
    tied: bool = False

    @property
    def layer(self) -> int:
        """Parameters of the matrices of a layer."""
        return 2 * self.width * self.width + 2 * self.width * self.keys + 3 * self.width * self.inner

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.layers * (self.layer + 2 * self.width) + (2 - self.tied) * self.head + self.width

    @property
    def head(self) -> int:
        """Those of the head."""
        return self.vocabulary * self.width

    @property
    def kept(self) -> int:
        """Bytes of activations that a float32 pass over all layers keeps of a token."""
        return (32 * self.width + 8 * self.keys + 16 * self.inner) * self.layers

    def adapter(self, rank: int) -> int:
        """Parameters of an adapter on all linear layers but the head."""
        widths = 2 * 2 * self.width + 2 * (self.width + self.keys) + 3 * (self.width + self.inner)
        return self.layers * rank * widths


SHAPES = {
    "Llama 3.2 1B": Llama(16, 2048, 512, 8192, 128256, tied=True),
    "Llama 3.2 3B": Llama(28, 3072, 1024, 8192, 128256, tied=True),
    "Llama 3.1 8B": Llama(32, 4096, 1024, 14336, 128256),
    "Llama 3.1 70B": Llama(80, 8192, 1024, 28672, 128256),
}


MEASURED = ((6, 384, 8000), (4, 640, 4000), (8, 256, 16000))
"""Layers, width and vocabulary of what `--measure` runs."""


def peak_bytes(
    shape: Llama,
    tokens: int,
    answers: int,
    *,
    half: bool = True,
    rank: int | None = None,
    gradients: int = 1,
    copies: int = 0,
    checkpointing: bool = False,
    ranks: int = 1,
    most_logits: int = 2**28,
) -> float:
    """Most bytes that tensors hold on each rank, with AdamW.

    Args:
        shape: the model.
        tokens: of the larger set's batch, on a rank.
        answers: those among them that are trained.
        half: computing in bf16, under float32 weights or, with an adapter, bf16 ones.
        rank: of an adapter; `None` trains everything.
        gradients: one, or two that are kept apart.
        copies: of what is trained, on the device.
        checkpointing: whether layers are computed again in the backward pass.
        ranks: that share everything but activations (FSDP2).
        most_logits: at once; 2**25 on a CPU.
    """
    trained = shape.parameters if rank is None else shape.adapter(rank)
    base = 2 if half and rank is not None else 4
    weights = base * shape.parameters + (0 if rank is None else 4 * trained)
    whole = 2 * shape.layer if half and rank is None else 0  # bf16 copies of a layer's weights
    h, k, i = shape.width, shape.keys, shape.inner
    if checkpointing:
        kept: float = base * h * tokens * shape.layers
    elif rank is not None and half:
        kept = (28.5 * h + 5 * k + 9.5 * i) * tokens * shape.layers
    elif half:
        kept = ((36 * h + 6 * k + 8 * i) * tokens + whole) * shape.layers
    else:
        kept = shape.kept * tokens
    head = 4 * shape.head if rank is None else 0
    logits = min(answers * shape.vocabulary, most_logits) * (6 if half else 4) + head
    held = (weights + (8 + 4 * copies) * trained) / ranks
    gradient = 4 * trained / ranks
    return held + max(gradient + kept + logits, gradients * gradient + head / ranks)


def operations(shape: Llama, tokens: float, answers: float, *, rank: int | None = None, again: float = 0.0) -> float:
    """Floating-point operations of a step over `tokens` of both sets together, the head at `answers` alone.

    Args:
        shape: the model.
        tokens: of forget and retain rows.
        answers: those among them that are trained.
        rank: of an adapter; its gradient needs none of the weights'.
        again: share of the tokens that one more forward pass sees (EUPMU: those to keep).
    """
    forward = 2 * (shape.layers * shape.layer * tokens + shape.head * answers)
    return forward * ((3 if rank is None else 2) + again)


def matrix_rate(shape: Llama, tokens: int) -> float:
    """Operations per second of the processor in the products of a layer, forward and backward."""
    import torch

    states, weights = torch.randn(tokens, shape.width), torch.randn(shape.inner, shape.width)
    gradient = torch.randn(tokens, shape.inner)
    seconds = []
    for _ in range(15):
        start = time.process_time()
        _ = states @ weights.T, gradient @ weights, gradient.T @ states
        seconds.append(time.process_time() - start)
    return 3 * 2 * tokens * shape.width * shape.inner / statistics.median(seconds)


def measure(methods: tuple[str, ...], rounds: int, steps: int) -> None:
    """Seconds of real steps, and those of the formula.

    The rate of products is measured beside each shape; that of all else, one for all points, is their median.
    """
    from bench_runs import add_arguments, load
    from bench_step import measure as measure_steps

    points: list[tuple[str, str, float, float, float]] = []
    for layers, width, vocabulary in MEASURED:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        arguments = parser.parse_args(
            f"--layers {layers} --hidden_size {width} --vocabulary {vocabulary} --steps {steps}".split()
        )
        arguments.rounds, arguments.variants, arguments.processor_time = rounds, list(methods), True
        loaded = load(arguments)
        both = [row for rows in loaded[2:] for row in rows]
        tokens = sum(len(row["input_ids"]) - 1 for row in both) / (steps + 1)
        answers = sum(label != -100 for row in both for label in row["labels"]) / (steps + 1)
        shape = Llama(layers, width, width, width * 8 // 3, vocabulary, tied=True)
        before = matrix_rate(shape, round(tokens / 2))
        rows = measure_steps(arguments, loaded)
        rate = (before + matrix_rate(shape, round(tokens / 2))) / 2
        for row in rows:
            again = 0.5 if row["variant"] == "eupmu" else 0.0
            products = operations(shape, tokens, answers, again=again) / rate
            moved = shape.kept * tokens * (1 + again / 3)
            points.append((f"{layers} x {width}, {vocabulary}", row["variant"], products, moved, row["median"]))
    pace = statistics.median(moved / (found - products) for *_, products, moved, found in points)
    print(f"bytes of kept activations a second beside the products: {pace / 1e9:.2f} 10^9")
    print("| layers x width, vocabulary | method | products, s | the rest, s | both | measured | off |")
    for name, method, products, moved, found in points:
        rest = moved / pace
        print(
            f"| {name} | {method} | {products:.3f} | {rest:.3f} | {products + rest:.3f} | {found:.3f} "
            f"| {(products + rest) / found - 1:+.0%} |"
        )


def main() -> None:
    """Print the table for well-known shapes, or that of measured steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048, help="of a set's batch, on each rank")
    parser.add_argument("--ranks", type=int, default=8, help="of the sharded columns")
    parser.add_argument("--measure", nargs="+", metavar="METHOD", help="variants of bench_step.py to measure")
    parser.add_argument("--rounds", type=int, default=3, help="of measured steps")
    parser.add_argument("--steps", type=int, default=3, help="measured in each round")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(tuple(arguments.measure), arguments.rounds, arguments.steps)
        return
    tokens, answers, ranks = arguments.tokens, arguments.tokens // 2, arguments.ranks
    print(
        f"| GiB, {tokens} tokens | adapter | adapter, again | whole, again | whole, again, two gradients "
        f"| the same on {ranks} ranks |"
    )
    for name, shape in SHAPES.items():
        found = [
            peak_bytes(shape, tokens, answers, rank=16),
            peak_bytes(shape, tokens, answers, rank=16, checkpointing=True),
            peak_bytes(shape, tokens, answers, checkpointing=True),
            peak_bytes(shape, tokens, answers, checkpointing=True, gradients=2),
            peak_bytes(shape, tokens, answers, checkpointing=True, gradients=2, ranks=ranks),
        ]
        print(f"| {name} | " + " | ".join(f"{each / GIB:.1f}" for each in found) + " |")


if __name__ == "__main__":
    main()
