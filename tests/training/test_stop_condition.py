"""The grammar of `stop_when`."""

from __future__ import annotations

import pytest

from unlearn_hf import NPOConfig
from unlearn_hf.training.stop_condition import parse_condition

NOW = {"forget_prob": 0.05, "retain_prob": 0.9, "step": 40.0, "epoch": 2.0}
BEFORE = {"forget_prob": 0.99, "retain_prob": 0.98}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("forget_prob < 0.1", True),
        ("forget_prob < 5e-2", False),
        ("forget_prob<=.05", True),
        ("0.1 > forget_prob", True),
        ("forget_prob < 0.1 and retain_prob > 0.95 * initial", False),
        ("forget_prob < 0.1 and retain_prob > initial * 0.9", True),
        ("forget_prob < 0.06 * initial", True),
        ("forget_prob < 0.01 or step >= 40", True),
        ("step > 40 or forget_prob < 0.1 and epoch < 2", False),
        ("(step > 40 or forget_prob < 0.1) and epoch <= 2", True),
        ("retain_prob > 10 * forget_prob", True),
        ("forget_prob < 0.1 and\n  step > 2", True),
    ],
)
def test_what_holds(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(NOW, BEFORE) is holds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("forgetprob < 0.1", "'forgetprob' is not known; did you mean forget_prob"),
        ("forget_prob < 0.1 and retain_pob > 0.9 * initial", "did you mean retain_prob"),
        ("retain_prob > 0.9 * inital", "did you mean initial"),
        ("forget_prob", "'forget_prob' is no comparison by <, <=, > or >="),
        ("forget_prob = 0.1", "invalid syntax at "),
        ("forget_prob == 0.1", "'forget_prob == 0.1' is no comparison"),
        ("0.1 < forget_prob < 0.9", "'0.1 < forget_prob < 0.9' is no comparison"),
        ("not forget_prob < 0.1", "'not forget_prob < 0.1' is no comparison"),
        ("forget_prob < -1", "'-1' is no number"),
        ("forget_prob < 'low'", "\"'low'\" is no number"),
        ("forget_prob < True", "'True' is no number"),
        ("forget_prob < ", "it ends too early"),
        ("forget_prob < 0.1 and", "it ends too early"),
        ("forget_prob < 0.1 # soon\n and retain_prob > 0.9", "'#' has no meaning"),
        ("forget_prob < 0.1 retain_prob > 1", "invalid syntax at "),
        ("(forget_prob < 0.1", "'(' was never closed"),
        ("0.1 < 0.2", "names nothing that is measured"),
        ("step > initial", "'initial' needs forget_prob or retain_prob"),
        ("__import__('os') < 1", "\"__import__('os')\" is no number"),
        ("__import__ < 1", "'__import__' is not known"),
        ("and < 1", "invalid syntax at "),
        ("", "it ends too early"),
    ],
)
def test_bad_conditions(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="stop_when: ") as found:
        NPOConfig(output_dir="never written", stop_when=text, use_cpu=True)
    assert problem in str(found.value)
