"""Stands for `unlearn` in sweeps: writes at once what a run with such a learning rate might have measured.

python sweep_program.py unlearn --learning_rate 1e-4 ... --output_dir FOLDER
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

options = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=False))
folder = Path(options["--output_dir"])
rate = float(options["--learning_rate"])
folder.mkdir(parents=True)
(folder / "model.safetensors").write_text("weights")
(folder / "options.json").write_text(json.dumps(sys.argv[1:]))


def look(step: int, score: float) -> None:
    with (folder / "stop_looks.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "score": score}) + "\n")


behaviour = os.environ.get("SWEEP_PROGRAM", "")
once = Path(os.environ.get("SWEEP_PROGRAM_ONCE", "/nonexistent"))
if behaviour == "fail" and rate > 1e-4:
    print("Traceback ...\nerror: the rows are gone", file=sys.stderr)
    sys.exit(2)
if behaviour in ("wait", "die") and not once.exists():
    once.write_text(str(os.getpid()))
    if behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
for step in (5, 10, 15, 20, 25):
    look(step, rate)
if behaviour == "poor" and rate < 2e-5:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
        sys.exit(130)
known = 10
verdict = {
    "after": {"forget_prob": math.nan if behaviour == "nan" else 1 / (1 + 1e4 * rate)},
    "kept_share": {"mean": 1 - 200 * rate},
    "leaking_rows": [{}] * max(0, known - int(5e4 * rate)),
    "rows": {"known_before": known, "forget": 12, "held_back": True},
    "known_before": behaviour != "unknown",
}
(folder / "verdict.json").write_text(json.dumps(verdict))
