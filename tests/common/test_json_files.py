"""JSON files on disk: whole or absent, and strict where a number must be one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unlearn_hf.common.json_files import write_json


def test_json_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Circular"):
        write_json(path, _circular())
    assert json.loads(path.read_text()) == {"a": 1}
    assert [each.name for each in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(("content", "error"), [(float("nan"), ValueError), (Path("x"), TypeError)])
def test_strict_files_hold_json_alone(tmp_path: Path, content: object, error: type[Exception]) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(error):
        write_json(path, [content], strict=True)
    assert not path.exists()
    write_json(path, [content])
    assert path.exists()


def _circular() -> list[object]:
    items: list[object] = []
    items.append(items)
    return items
