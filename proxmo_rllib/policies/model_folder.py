"""A model's folder as it lies on disk: which files count, and what their headers say. Reads no weights.

Folders come with more than one copy of their weights, with adapters beside them, half downloaded. What counts is what
transformers loads: `model.safetensors`, or else the shards that `model.safetensors.index.json` lists.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Manifest = dict[str, tuple[int, ...]]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What a run reads of a model on the hub; a second copy of the weights in another format stays where it is.
DOWNLOADED = (
    "model*.safetensors",
    INDEX,
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.py",
    "LICENSE*",
    "NOTICE*",
    "*.md",
)
NOT_DOWNLOADED = ("*/*", "consolidated*", "*adapter*", "params.json", "onnx*")
# In a model's folder beside what is copied into a checkpoint: weights, other copies of them, what belongs to those.
_OF_WEIGHTS = (
    *("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.gguf", "*.pt", "*.pth", "*.h5"),
    *("*.msgpack", "*.onnx", "*.onnx_data", "adapter_*", "params.json", ".*"),
)
_OF_ADAPTER = "adapter_config.json"
_SHARD = re.compile(r"[\w][\w.-]{0,200}\.safetensors")
_LONGEST_HEADER = 100 << 20  # bytes; safetensors' own limit


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a folder holds.

    Attributes:
        path: of the folder.
        config: its config.json.
        files: those with the weights that count.
        tensors: names and shapes in them.
        ignored: weight files that do not count: other copies, adapters.
    """

    path: Path
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    tensors: Mapping[str, tuple[int, ...]]
    ignored: tuple[Path, ...]


def read_model_folder(path: Path) -> ModelFolder:
    """Reads a folder's config and the headers of its weights.

    Raises:
        ValueError: a file is missing, cut short or damaged; names it and the remedy.
    """
    config = _read_json(path / "config.json")
    files, listed = _weight_files(path)
    tensors: Manifest = {}
    for file in files:
        here = read_header(file)
        missing = [name for name, shard in listed.items() if shard == file.name and name not in here]
        if missing:
            raise ValueError(
                f"{file}: {INDEX} says that {missing[0]} is in it (and {len(missing) - 1} more), and it is not; "
                "download the model again."
            )
        tensors.update({name: shape for name, shape in here.items() if not listed or listed.get(name) == file.name})
    ignored = tuple(sorted(set(path.glob("*.safetensors")) - set(files)))
    return ModelFolder(path, config, files, tensors, ignored)


def read_header(file: Path) -> Manifest:
    """Names and shapes in a safetensors file.

    Raises:
        ValueError: it is cut short, or no safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            raise ValueError(_damaged(file, f"its {size:,} bytes are no safetensors file{_pointer(start)}"))
        try:
            header = json.loads(opened.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((_sizes(entry["data_offsets"])[1] for entry in entries.values()), default=0)
            shapes = {name: _sizes(entry["shape"]) for name, entry in entries.items()}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(_damaged(file, f"its header cannot be read ({error})")) from error
    if size < 8 + length + end:
        raise ValueError(_damaged(file, f"it has {size:,} of {8 + length + end:,} bytes"))
    return shapes


def _sizes(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list) or not all(type(size) is int and size >= 0 for size in given):
        raise ValueError(f"{given!r:.80} is no list of sizes")
    return tuple(given)


def _weight_files(path: Path) -> tuple[tuple[Path, ...], dict[str, str]]:
    """The files that count, and the shard of each tensor if there is an index."""
    if (path / SINGLE).is_file():
        return (path / SINGLE,), {}
    if (path / INDEX).is_file():
        listed = _read_json(path / INDEX).get("weight_map")
        if not isinstance(listed, dict) or not listed:
            raise ValueError(f"{path / INDEX}: it has no weight_map; download the model again.")
        for name in listed.values():
            # A path out of the folder is nobody's shard.
            if not isinstance(name, str) or not _SHARD.fullmatch(name):
                raise ValueError(f"{path / INDEX}: it lists {name!r:.80}, no file of its folder; download it again.")
        files = tuple(path / name for name in sorted(set(listed.values())))
        for file in files:
            if not file.is_file():
                raise ValueError(f"{file} is missing, and {INDEX} lists it; download the model again.")
        return files, listed
    others = sorted(
        file.name for suffix in ("safetensors", "bin", "gguf", "pt", "pth") for file in path.glob(f"*.{suffix}")
    )
    there = f"; there is {', '.join(others[:3])}" if others else ""
    raise ValueError(
        f"{path} has neither {SINGLE} nor {INDEX}{there}. Load the model with transformers and write it with "
        "save_pretrained(folder)."
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file} is missing, so its folder is no Hugging Face model.") from None
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(_damaged(file, f"it cannot be read ({error})")) from error
    if not isinstance(content, dict):
        raise ValueError(_damaged(file, f"it holds a {type(content).__name__} and no object"))
    return content


def _pointer(start: bytes) -> str:
    return " but a pointer of Git LFS: run `git lfs pull` in it" if start == b"version " else ""


def _damaged(file: Path, reason: str) -> str:
    return f"{file} is damaged: {reason}; download or save the model again."


def local_model(model: str | Path) -> Path:
    """Folder of a model given by path or by its name on the Hugging Face hub; fetched, as far as a run reads it.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: what was fetched are not the bytes that the hub announced.
    """
    folder = Path(model)
    if os.path.isdir(folder):
        return folder
    if folder.is_absolute() or str(model).startswith((".", "~")):
        raise FileNotFoundError(f"Model folder {model} does not exist.")
    from huggingface_hub import snapshot_download

    is_new = cached_model(model) is None
    fetched = Path(snapshot_download(str(model), allow_patterns=list(DOWNLOADED), ignore_patterns=list(NOT_DOWNLOADED)))
    if is_new:
        check_hashes(fetched)
    return fetched


def check_hashes(snapshot: Path) -> None:
    """Compares what was fetched with the hashes that the hub announced.

    huggingface_hub names a file in its cache by them: large files by their SHA-256, others as git does. It compares
    sizes alone.

    Args:
        snapshot: a folder of its cache, with links to the files.

    Raises:
        ValueError: a file has another hash; it is removed.
    """
    for link in sorted(path for path in snapshot.rglob("*") if path.is_symlink()):
        blob = link.resolve()
        if len(blob.name) == hashlib.sha256().digest_size * 2:
            digest = hashlib.sha256()
        elif len(blob.name) == hashlib.sha1().digest_size * 2:
            digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size)
        else:
            continue
        with blob.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != blob.name:
            blob.unlink()
            link.unlink()
            raise ValueError(
                f"{link}: its hash is {digest.hexdigest()}, and the hub announced {blob.name}. It is removed; run this "
                "again to fetch it anew."
            )


def cached_model(model: str | Path) -> Path | None:
    """The folder of a model that is on this machine already, with its weights; None if a run would have to fetch it."""
    folder = Path(model)
    if os.path.isdir(folder):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(str(model), local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return None
    return cached if any((cached / name).exists() for name in (SINGLE, INDEX)) else None


def files_that_count(model: ModelFolder, scratch: Path) -> Path:
    """A folder with the model's files and no weights but those that count; the model's own where that is the case.

    vLLM reads every safetensors file that it finds, and transformers puts an adapter that it finds into the model.

    Args:
        model: the folder.
        scratch: empty; links to the files are made in it.
    """
    if not model.ignored and not (model.path / _OF_ADAPTER).exists():
        return model.path
    for file in model.path.iterdir():
        if file not in model.ignored and file.name != _OF_ADAPTER:
            (scratch / file.name).symlink_to(file.resolve())
    return scratch


def copy_all_but_weights(source: Path, target: Path) -> None:
    """Copies what makes a model besides its weights: config, generation config, tokenizer, templates, licence, code.

    Args:
        source: the model's folder.
        target: another folder, which is there.
    """
    for file in sorted(source.iterdir()):
        if any(file.match(pattern) for pattern in _OF_WEIGHTS):
            continue
        if file.is_file():
            shutil.copyfile(file, target / file.name)
        elif file.name == "additional_chat_templates":
            shutil.copytree(file, target / file.name, dirs_exist_ok=True)
