"""`python -m unlearn_hf`, which is what `accelerate launch -m unlearn_hf` runs."""

from __future__ import annotations

import sys

from unlearn_hf.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
