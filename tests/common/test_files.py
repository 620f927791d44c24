"""Files on disk: whole or absent, strict where a number must be one, read plain or gzipped."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path

import pytest

from unlearn_hf.common.files import code_digest, read_json, read_objects, whole_file, write_json


def test_json_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Circular"):
        write_json(path, _circular())
    assert json.loads(path.read_text()) == {"a": 1}
    assert [each.name for each in path.parent.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail() -> None:
        with whole_file(path) as partial:
            partial.write_bytes(b"ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_links_stay_links_and_pipes_are_written_to(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real.json", tmp_path / "link.json", tmp_path / "pipe"
    real.write_text("{}")
    link.symlink_to(real)
    write_json(link, [1])
    assert link.is_symlink()
    assert json.loads(real.read_text()) == [1]
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_json(pipe, [2])
    reader.join(timeout=30)
    assert json.loads(read[0]) == [2]
    assert pipe.is_fifo()


@pytest.mark.parametrize(("content", "error"), [(float("nan"), ValueError), (Path("x"), TypeError)])
def test_strict_files_hold_json_alone(tmp_path: Path, content: object, error: type[Exception]) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(error):
        write_json(path, [content], strict=True)
    assert not path.exists()
    write_json(path, [content])
    assert path.exists()


@pytest.mark.parametrize("read", [read_json, read_objects])
def test_gzip_is_read_and_a_broken_one_is_named(tmp_path: Path, read: object) -> None:
    assert callable(read)
    path = tmp_path / "a.json"
    data = gzip.compress(b'[{"a": 1}]')
    path.write_bytes(data)
    assert read(path) == [{"a": 1}]
    for broken in (data[:-6], data[:12] + b"\xff\xff" + data[14:]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"a\.json: the gzip file is broken"):
            read(path)


def _circular() -> list[object]:
    items: list[object] = []
    items.append(items)
    return items


def test_the_digest_of_code_is_of_content_and_names(tmp_path: Path) -> None:
    def digest(name: str, content: str) -> str:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / name).write_text(content)
        return code_digest(folder)

    assert digest("a.py", "x = 1") == digest("a.py", "x = 1")
    assert len({digest("a.py", "x = 1"), digest("a.py", "x = 2"), digest("b.py", "x = 1"), code_digest()}) == 4
