"""Results of an interrupted pass on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlearn_hf.likelihood.one_pass import PartialResults


@pytest.mark.parametrize("spoilt", ['["b", {"nll": 2', "\x00\x00\x00", "7", '["b"]', '[["b"], 2]'])
def test_a_spoilt_line_costs_its_item_alone(spoilt: str, tmp_path: Path) -> None:
    partial = PartialResults(tmp_path, "f" * 64)
    partial.append("pass", 0, [("a", {"nll": 1.0}), ("b", {"nll": 2.0}), ("c", {"nll": 3.0})])
    assert partial.folder is not None
    (file,) = partial.folder.iterdir()
    lines = file.read_text().split("\n")
    file.write_text("\n".join([lines[0], spoilt, *lines[2:]]))
    assert partial.read() == {"a": {"nll": 1.0}, "c": {"nll": 3.0}}
