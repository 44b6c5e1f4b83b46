"""`proxmo text-part`: write the text part of a model that also sees or hears, to train it.

    proxmo text-part google/gemma-3-4b-it --output models/gemma-3-4b-it-text

The folder that it writes is a causal LM of its own, which transformers, vLLM and `.policy(pretrained=...)` load.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse(argv: list[str]) -> argparse.Namespace:
    """Read and check the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(prog="proxmo text-part", description="Write the text part of a model.")
    parser.add_argument("model", metavar="MODEL", help="a folder, or a name on the Hugging Face hub")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where; must not be there")
    arguments = parser.parse_args(argv)
    if arguments.output.exists():
        parser.error(f"--output {arguments.output}: it is there already; remove it, or name another")
    return arguments


def main(argv: list[str]) -> int:
    """Write it; see the module's docstring."""
    arguments = parse(argv)
    from proxmo_rllib.policies import resolve_pretrained
    from proxmo_rllib.policies.model_folder import local_model
    from proxmo_rllib.policies.text_part import write_text_part

    try:
        name = write_text_part(local_model(resolve_pretrained(arguments.model)), arguments.output)
    except (ValueError, OSError) as error:
        print(f"proxmo text-part: {error}", file=sys.stderr)
        return 1
    print(f"written: {arguments.output}, a {name}")
    return 0
