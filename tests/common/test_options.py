"""What configurations declare is understood by others, too."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from transformers import HfArgumentParser

from unlearn_hf import METHODS, FinetuningConfig
from unlearn_hf.common.options import Help


@pytest.mark.parametrize("config", [*(each.config_class for each in METHODS.values()), FinetuningConfig])
def test_a_launch_script_of_transformers_parses_every_configuration(config: type, tmp_path: Path) -> None:
    parser = HfArgumentParser(config)
    words = ["--output_dir", str(tmp_path / "run"), "--learning_rate", "3e-5", "--use_cpu", "true"]
    (found,) = parser.parse_args_into_dataclasses(words)
    assert type(found) is config
    assert found.learning_rate == 3e-5
    assert "--learning_rate" in parser.format_help()


def test_a_limit_holds_for_what_was_parsed(tmp_path: Path) -> None:
    parser = HfArgumentParser(METHODS["eupmu"].config_class)
    with pytest.raises(ValueError, match=r"dual_learning_rate: -1\.0 is not positive"):
        parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path / "run"), "--dual_learning_rate", "-1"])


@pytest.mark.parametrize("name", ["initial_dual", "epsilon", "dual_learning_rate", "held_back_rows"])
def test_none_is_refused_where_a_number_is_needed(name: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {name: None}
    with pytest.raises(ValueError, match=rf"^{name}: None is no number"):
        METHODS["eupmu"].config_class(output_dir=str(tmp_path), use_cpu=True, **given)


@pytest.mark.parametrize("name", ["forget_loss", "retain_loss", "constraint"])
def test_a_list_is_no_choice(name: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {name: ["nll"]}
    with pytest.raises(ValueError, match=rf"^{name}: \['nll'\] is not known; choose one of"):
        METHODS["eupmu"].config_class(output_dir=str(tmp_path), use_cpu=True, **given)


def test_notes_are_no_text() -> None:
    text = Help("Rank.", only="positive")
    assert text == "Rank."
    assert copy.deepcopy(text).notes == {"only": "positive"}
