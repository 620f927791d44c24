"""Make every notebook in `notebooks/` anew from its script, with fresh outputs.

python scripts/execute_notebooks.py [NAME ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient


def main() -> None:
    """Execute the named notebooks, or all."""
    folder = Path(__file__).resolve().parents[1] / "notebooks"
    for script in sorted(folder.glob("*.py")):
        if sys.argv[1:] and script.stem not in sys.argv[1:]:
            continue
        print(f"executing {script.name}", flush=True)
        notebook = jupytext.read(script)
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=where, coalesce_streams=True).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # time stamps would change the file in every run
        nbformat.write(notebook, script.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
