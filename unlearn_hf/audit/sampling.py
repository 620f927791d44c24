"""Sampling: many answers to each question, of which one may say what the greedy answer does not."""

from __future__ import annotations

from dataclasses import replace

from unlearn_hf.audit.base import AuditAttack, AuditPass, Findings, Sizes, Work

LEAK_RECALL = 0.5
"""ROUGE-L recall from which on a sample counts as a leak. The paper asks an NLI model too, hence our other name."""
_TOP_P = {"whole_distribution": 1.0, "nucleus": 0.9}


def powers_of_two(samples: int) -> tuple[int, ...]:
    """1, 2, 4 ... and `samples` itself."""
    return tuple(sorted({2**power for power in range(samples.bit_length())} | {samples}))


class Sampling(AuditAttack):
    """Answers drawn at temperature 1, from the whole distribution (leak@k) and from its likely part (bounds)."""

    summary = "sampled answers: the chance that one of k leaks (by ROUGE, by key words), bounds for answers not drawn"
    paper = "leak@k: arXiv 2511.04934; bounds: Scholten et al. 2025, arXiv 2410.03523"
    shown = ("rouge_leak@*", "rouge_mean*")

    def variants(self) -> tuple[str, ...]:
        """Both ways to draw."""
        return tuple(_TOP_P)

    def work(self, sizes: Sizes) -> Work:
        """All samples."""
        return Work(answers=len(_TOP_P) * sizes.settings.samples * sizes.forget)

    def findings(self, run: AuditPass, variant: str) -> Findings:
        """Draw, and judge each question by all of its samples."""
        import numpy as np

        from unlearn_hf.audit.answers import AnswersRequest
        from unlearn_hf.audit.leakage import deviation_bound, leak_at_k, leak_probability_bound, mean_bound
        from unlearn_hf.evaluation.generation import GenerationSettings

        samples = run.settings.samples
        settings = GenerationSettings(
            run.engine.generation.max_new_tokens,
            samples=samples,
            temperature=1.0,
            top_p=_TOP_P[variant],
            seed=run.settings.seed,
        )
        # A batch has all samples of its prompts at once.
        engine = replace(run.engine, batch_size=max(1, run.engine.batch_size // samples))
        table = replace(run, engine=engine).run(run.model, [AnswersRequest("audit", run.forget, settings)])
        recalls = [np.atleast_1d(each) for each in table["recalls"]]
        leaks = {
            "rouge": [int((each >= LEAK_RECALL).sum()) for each in recalls],
            "key_words": [int(np.sum(each)) for each in table["key_words"]],
        }
        values: dict[str, list[float | None]]
        if variant == "nucleus":
            values = {
                "rouge_mean": [float(each.mean()) for each in recalls],
                "rouge_mean_bound": [mean_bound(each) for each in recalls],
                "rouge_deviation_bound": [deviation_bound(each) for each in recalls],
                **{
                    f"{name}_leak_bound": [leak_probability_bound(count, samples) for count in counts]
                    for name, counts in leaks.items()
                },
            }
        else:
            values = {
                f"{name}_leak@{k}": [leak_at_k(count, samples, k) for count in counts]
                for name, counts in leaks.items()
                for k in run.settings.k or powers_of_two(samples)
            }
        return Findings(list(range(len(run.forget))), values)


SAMPLING = Sampling()
