"""Recompute every aggregate of an evaluation log from its values per sample.

Logs of TOFU, open-unlearning and our own are read by `unlearn_hf.evaluation.logs.reading`. Plain names carry the
definition of the framework that wrote the log (`compatibility`), suffixes the others; see
`unlearn_hf.benchmarks.tofu.metrics`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from unlearn_hf.benchmarks.base import BENCHMARKS, OWN_ROWS
from unlearn_hf.benchmarks.benchmark_of_log import benchmark_of, check_same_data, data_of, read_reference
from unlearn_hf.common.files import write_json
from unlearn_hf.evaluation.logs.reading import EvaluationLog, PathLike, read_log, read_reference_log
from unlearn_hf.evaluation.metric_value import MetricValue, flatten, metric_value
from unlearn_hf.evaluation.metrics.base import added_metrics
from unlearn_hf.evaluation.metrics.composite import UTILITY_PARTS, UTILITY_SETS
from unlearn_hf.evaluation.metrics.statistics import harmonic_mean, privleak_open_unlearning
from unlearn_hf.evaluation.results import read_result
from unlearn_hf.evaluation.sample_table import Compatibility, Missing, Protocol, prepare_table

__all__ = ["EvaluationLog", "evaluate_from_log", "read_log", "read_reference", "recompute", "recompute_values"]
_NOT_RECOMPUTED = ("forget_quality", "privleak")  # their reference is not in the log


def recompute_values(
    log_file: PathLike,
    reference_file: PathLike | None = None,
    *,
    protocol: Protocol | None = None,
    compatibility: Literal["open_unlearning", "unlearn_hf", "auto"] = "auto",
    split: str | None = None,
    corpus: str | None = None,
) -> dict[str, MetricValue]:
    """Every aggregate of a log, recomputed from its values per sample.

    Args:
        log_file: log of the model, of any kind that `read_log` reads.
        reference_file: log of the retain (retrained) model, for forget quality, PrivLeak and privacy.
        protocol: `None` takes the rows as they are, which must then be the same in both; `"official"` cuts both to the
            first 300 of each set.
        compatibility: whose definitions get the plain names; `"auto"` those of the framework that wrote the log.
        split: see `read_log`.
        corpus: of a benchmark that has several, where the log does not tell.

    Returns:
        Name -> value. Aggregates of open-unlearning that cannot be recomputed, because their reference is unknown or
        values per sample are missing, follow as `forget_quality_logged` and so on; a log without any values per sample
        gives its aggregates as logged.

    Raises:
        ValueError: for unreadable or contradictory logs, and references of other data, over other rows or of
            another definition, or with nothing to compare.
    """
    log = read_log(log_file, split)
    reference = None if reference_file is None else read_reference_log(reference_file)
    if reference is not None:
        check_same_data(data_of(log), data_of(reference), reference.path, str(log.path))
    if log.samples is None:
        return _logged_values(log, reference)
    table = None if reference is None else reference.table("a reference")
    # Rows that no benchmark claims have what the general evaluation has.
    benchmark = BENCHMARKS.find(benchmark_of(log) or OWN_ROWS)
    if protocol is None and reference is not None:
        benchmark.check_logs(log, reference)
    chosen: Compatibility = log.compatibility if compatibility == "auto" else None
    chosen = "open_unlearning" if compatibility == "open_unlearning" else chosen
    missing: Missing = "skip" if "skip" in (log.missing, reference.missing if reference else None) else "error"
    chosen_protocol = protocol or log.protocol
    samples = log.samples
    if chosen != log.compatibility:  # these scores have a definition that cannot be undone
        fixed = ["gradient_norm", *(["extraction_strength"] if chosen is None else [])]
        samples = samples.drop(columns=fixed, errors="ignore")
    values = benchmark.aggregate(
        samples,
        table,
        split=corpus,
        protocol=chosen_protocol,
        compatibility=chosen,
        missing=missing,
        **log.record,
    )
    cut = prepare_table(samples, chosen_protocol, missing)
    values |= added_metrics(cut, missing, protocol=chosen_protocol, **log.record)
    if log.kind == "open_unlearning":
        for name, value in log.logged.items():
            if name in _NOT_RECOMPUTED or name not in values:
                values[f"{name}_logged"] = _logged_value(f"{name}_logged", value, log)
    return values


def recompute(log_file: PathLike, reference_file: PathLike | None = None, **options: Any) -> dict[str, float]:
    """`recompute_values` as flat name -> number, with the same options and errors."""
    return flatten(recompute_values(log_file, reference_file, **options))


def evaluate_from_log(
    log: PathLike, reference: PathLike | None = None, output_file: PathLike | None = None, **options: Any
) -> dict[str, float]:
    """Recompute a log's aggregates and write them as flat JSON; the work of `unlearn-hf evaluate --from_log`.

    Args:
        log: see `recompute_values`.
        reference: log of the retain model.
        output_file: JSON file to write, floats in full precision; its folder is made if absent.
        **options: those of `recompute_values`.

    Returns:
        Flat name -> number, as written.

    Raises:
        ValueError: see `recompute_values`.
    """
    values = recompute(log, reference, **options)
    if output_file is not None:
        write_json(Path(output_file), values, strict=True)
    return values


def _logged_value(name: str, value: float, log: EvaluationLog) -> MetricValue:
    # n is not in such a log; 0 keeps it from being compared with a recomputed value.
    return metric_value(name, value, 0, f"logged_{log.compatibility or 'unknown'}", protocol=log.protocol)


def _logged_values(log: EvaluationLog, reference: EvaluationLog | None) -> dict[str, MetricValue]:
    """Aggregates as logged; only what follows from aggregates alone is recomputed."""
    if log.kind == "unlearn_hf":
        if reference is not None:
            log.table("comparing with a reference")
        return read_result(log.path)[1]
    logged = dict(log.logged)
    if reference is not None:
        if not {"mia_min_k_auc"} <= set(logged) & set(reference.logged):
            log.table("comparing with a reference")
        logged["privleak"] = privleak_open_unlearning(logged["mia_min_k_auc"], reference.logged["mia_min_k_auc"])
        logged.pop("forget_quality", None)
    nine = [f"{name}_{part}" for name in UTILITY_SETS for part in UTILITY_PARTS]
    if all(name in logged for name in nine):
        logged["model_utility"] = harmonic_mean({name: logged[name] for name in nine})
    return {name: _logged_value(name, value, log) for name, value in logged.items()}
