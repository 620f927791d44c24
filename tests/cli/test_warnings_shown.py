"""Warnings on the command line: ours are sentences, and what nobody can mend is not shown."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

import unlearn_hf
from unlearn_hf.cli.warnings_shown import QUIET, Quiet, readable_warnings

OURS = str(Path(unlearn_hf.__file__).parent / "training" / "unlearning.py")


def test_ours_are_sentences_and_others_keep_their_form() -> None:
    before = warnings.formatwarning
    with readable_warnings():
        assert warnings.formatwarning("rows are few.", UserWarning, OURS, 7) == "warning: rows are few.\n"
        other = warnings.formatwarning("rows are few.", UserWarning, "elsewhere.py", 7)
    assert other.startswith("elsewhere.py:7: UserWarning: rows are few.")
    assert warnings.formatwarning is before


@pytest.mark.parametrize("quiet", QUIET, ids=lambda each: each.text[:30])
def test_what_is_named_is_not_shown_and_anything_else_is(
    quiet: Quiet, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    def say(text: str) -> None:
        if quiet.category is not None:
            warnings.warn(text, quiet.category, stacklevel=1)
        else:
            logging.getLogger(quiet.logger).warning(text)

    warnings.simplefilter("always")
    with readable_warnings():
        say(f"{quiet.text} and so on")
        assert not recwarn.list
        assert not caplog.records
        say("another matter")
    assert len(recwarn.list) + len(caplog.records) == 1
    assert quiet.reason
    say(f"{quiet.text} and so on")
    assert len(recwarn.list) + len(caplog.records) == 2  # only within a command
