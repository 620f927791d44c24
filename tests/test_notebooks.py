"""Notebooks run from top to bottom, and are the same as their reviewable scripts."""

from __future__ import annotations

import multiprocessing
import os
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SHORTER = {
    "quickstart": [("max_new_tokens=32", "max_new_tokens=4, max_rows=4"), ("epsilon=0.1", r"\g<0>, verdict_rows=2")],
    "gradient_geometry": [("eval_on_start=True", r"\g<0>, verdict_rows=2")],
    "own_data": [
        ('output_dir="first"', r"max_steps=2, verdict_rows=2, \g<0>"),
        ("--output_dir second", r"--max_steps 2 --verdict_rows 2 \g<0>"),
    ],
    "compare_methods": [(r"rates = .*", "rates = (3e-4,)"), ("max_rows=40", "max_rows=4")],
    "muse_requests": [
        ("hidden_size=144", "hidden_size=48"),
        ("batch_size=64", "batch_size=64, max_rows=2"),
        ("--verdict_samples 2", "--verdict_samples 1 --verdict_rows 2"),
    ],
}
"""What a run that only shows that all cells work does besides training for less than one epoch."""


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_and_script_agree(path: Path) -> None:
    def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
        return [(cell.cell_type, cell.source) for cell in notebook.cells]

    assert cells(jupytext.read(path)) == cells(jupytext.read(path.with_suffix(".py")))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_whole_small_and_of_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    texts = [text for cell in cells for output in cell.outputs for text in written(output)]
    assert not any(re.search(r"(?<![\w.:/])/(tmp|home|root|usr|var|opt)/|Warning", text) for text in texts)
    assert path.stat().st_size < 400_000


def written(output: nbformat.NotebookNode) -> list[str]:
    data = output.get("data", {})
    return [output.get("text", ""), *(str(data[kind]) for kind in data if kind.startswith("text/"))]


# Where a page tells the same story and is run (own_data), or others run the same trainers (compare_methods): slow.
SLOW = ("own_data", "compare_methods")


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if path.stem in SLOW else []) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_notebook_runs_with_fewer_steps(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    shorter = [(r"num_train_epochs=\d+", "num_train_epochs=0.4"), *SHORTER.get(path.stem, ())]
    for pattern, replacement in shorter:
        found = 0
        for cell in notebook.cells:
            cell.source, count = re.subn(pattern, replacement, cell.source)
            found += count
        assert found, f"{path.name} has no {pattern} any more"
    # A kernel imports torch for seconds; this process has done so.
    process = multiprocessing.get_context("fork").Process(target=run_cells, args=(notebook, path))
    process.start()
    process.join(timeout=240)
    process.kill()  # where it hangs, or this process would wait for it in the end
    assert process.exitcode == 0


class Shell(InteractiveShell):
    """IPython without a terminal or a kernel, which has no windows to wait for."""

    def enable_gui(self, gui: str | None = None) -> None:
        assert gui is None


def run_cells(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Run all cells in the shell of this process; there must be a picture and no error."""
    os.chdir(path.parent)
    shell = Shell.instance()
    shell.run_line_magic("matplotlib", "inline")
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            with capture_output() as captured:
                done = shell.run_cell(cell.source)
            done.raise_error()
            shown += captured.outputs
    assert any("image/png" in output.data for output in shown)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
