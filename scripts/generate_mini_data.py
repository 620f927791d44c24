"""Write the data that come with the library: a small TOFU, MUSE-News and LUME about an invented world.

python scripts/generate_mini_data.py                           # the files of unlearn_hf/data/mini, byte for byte
python scripts/generate_mini_data.py --folder other --seed 1   # other facts in the same shape
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mini_lume import build_mini_lume
from mini_news import build_mini_news
from mini_tofu import build_mini_tofu

from unlearn_hf.data.mini import MINI_TOFU

PLAIN_TEXT = "idontknow"  # a text on each line, as in the official file of this name


def files(seed: int = 0) -> dict[str, str]:
    """Content of every file by its path in the folder."""
    found = {}
    corpora = {"tofu": build_mini_tofu(seed), "news": build_mini_news(seed), "lume": build_mini_lume(seed)}
    for corpus, tables in corpora.items():
        for name, rows in tables.items():
            lines = (row["text"] if name == PLAIN_TEXT else json.dumps(row, ensure_ascii=False) for row in rows)
            found[f"{corpus}/{name}.jsonl"] = "".join(f"{line}\n" for line in lines)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=MINI_TOFU.parent, help="where to; the library's own by default")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, text in files(arguments.seed).items():
        path = arguments.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        print(path)


if __name__ == "__main__":
    main()
