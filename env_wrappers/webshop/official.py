"""The official product files, read and checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from env_wrappers.webshop.nouns import title_nouns
from env_wrappers.webshop.products import Product, Wish

NO_ATTRIBUTES = ("DUMMY_ATTR",)  # what the published environment gives a product without any
SUMS = "SHA256SUMS"
HUMAN, NOUNS = "items_human_ins.json", "title_nouns.json"
# The small files first: who has both in a folder chooses by giving one of its own.
PAIRS = (("items_shuffle_1000.json", "items_ins_v2_1000.json"), ("items_shuffle.json", "items_ins_v2.json"))

_TEXT = ("asin", "name", "full_description", "query")
CHUNK = 2**24  # characters of the product file that are read at a time
_SPACE = re.compile(r"[\s,]*")
_DOLLARS = re.compile(r"[^\d.]")


class CatalogueError(ValueError):
    """A file of a catalogue is not what it should be."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one catalogue."""

    products: Path
    attributes: Path
    human: Path | None
    nouns: Path | None

    def present(self) -> list[Path]:
        """All that are there."""
        return [path for path in (self.products, self.attributes, self.human, self.nouns) if path is not None]


def find_files(folder: Path) -> Files:
    """The official files in a folder, the small or the full ones.

    Raises:
        FileNotFoundError: one is missing.
    """
    for products, attributes in PAIRS:
        if (folder / products).is_file():
            if not (folder / attributes).is_file():
                raise FileNotFoundError(f"{folder} has {products} but not {attributes}; put it there too.")
            extra = [folder / name if (folder / name).is_file() else None for name in (HUMAN, NOUNS)]
            return Files(folder / products, folder / attributes, *extra)
    raise FileNotFoundError(
        f"catalogue={str(folder)!r}: the folder has neither {PAIRS[0][0]} nor {PAIRS[1][0]}. Put the official files "
        "there (`proxmo data webshop` says which), or leave catalogue out for a generated one."
    )


def check_sums(folder: Path, files: Files) -> None:
    """Compare the files with the folder's SHA256SUMS, if it has one.

    Raises:
        CatalogueError: a file is not the one that was noted.
    """
    noted = folder / SUMS
    if not noted.is_file():
        return
    lines = [line.split(maxsplit=1) for line in noted.read_text(encoding="utf-8").splitlines()]
    sums = {line[1]: line[0] for line in lines if len(line) == 2}
    for path in files.present():
        expected = sums.get(path.name) or sums.get("*" + path.name)
        if expected is not None and (found := sha256(path)) != expected:
            raise CatalogueError(
                f"{path} has the SHA-256 {found}, and {noted} says {expected}: it is damaged or another version. "
                f"Download it again, or delete its line from {SUMS} if you mean to use it."
            )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_products(files: Files) -> Iterator[Product]:
    """The products of the official files, in their order.

    Raises:
        CatalogueError: a file is corrupt, or a record lacks what is needed.
    """
    attributes = _read(files.attributes, dict)
    wishes = _read(files.human, dict) if files.human else {}
    nouns = _read(files.nouns, dict) if files.nouns else {}
    seen: set[str] = set()
    for number, record in enumerate(_records(files.products)):
        place = f"{files.products}, product {number}"
        _check(record, place)
        asin = record["asin"]
        # As the published environment does: no second product of an id, and none without a proper one.
        if asin == "nan" or len(asin) > 10 or asin in seen:
            continue
        seen.add(asin)
        yield _product(record, attributes.get(asin) or {}, wishes.get(asin, ()), nouns.get(asin), place)


def _read(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path} is no JSON ({error}); download it again.") from error
    if not isinstance(content, kind):
        raise CatalogueError(f"{path} holds a {type(content).__name__}, not a {kind.__name__}; download it again.")
    return content


def _records(path: Path) -> Iterator[Any]:
    """The elements of a JSON list, one after the other: the full product file has five gigabytes."""
    decoder = json.JSONDecoder()
    number = 0
    with path.open(encoding="utf-8") as file:
        text = file.read(CHUNK).lstrip()
        if not text.startswith("["):
            raise CatalogueError(f"{path} starts with {text[:20]!r} and not with a list; download it again.")
        position, rest = 1, True
        while True:
            position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
            try:
                if text.startswith("]", position):
                    return
                record, position = decoder.raw_decode(text, position)
                # A number would be cut where the chunk ends; records cannot be.
                yield record
                number += 1
            except json.JSONDecodeError as error:
                more = file.read(max(CHUNK, len(text))) if rest else ""
                if not more:
                    raise CatalogueError(
                        f"{path} breaks off or is damaged after {number} products ({error.msg}); download it again."
                    ) from error
                text, position, rest = text[position:] + more, 0, bool(more)


def _check(record: Any, place: str) -> None:
    if not isinstance(record, dict):
        raise CatalogueError(f"{place} is {record!r:.80}, not a record; download the file again.")
    for key in _TEXT:
        if not isinstance(record.get(key), str):
            raise CatalogueError(f"{place}: {key} is {record.get(key)!r:.80}, not a text; download the file again.")
    if not isinstance(record.get("small_description"), str | list):
        raise CatalogueError(
            f"{place}: small_description is {record.get('small_description')!r:.80}, neither a text nor a list of "
            "texts; download the file again."
        )


def _product(
    record: Mapping[str, Any], extra: Mapping[str, Any], wishes: Any, nouns: list[str] | None, place: str
) -> Product:
    bullets = record["small_description"]
    try:
        return Product(
            asin=record["asin"],
            title=record["name"],
            description=record["full_description"],
            bullets=tuple(map(str, bullets)) if isinstance(bullets, list) else (bullets,),
            prices=_prices(record.get("pricing")),
            options=_options(record.get("customization_options") or {}),
            attributes=tuple(extra.get("attributes", NO_ATTRIBUTES)),
            # Nothing published fails without these until the product is bought.
            category=record.get("category") or "",
            query=record["query"].lower().strip(),
            product_category=record.get("product_category") or "",
            nouns=title_nouns(record["name"]) if nouns is None else tuple(nouns),
            instruction=extra.get("instruction"),
            instruction_attributes=tuple(extra.get("instruction_attributes") or ()),
            wishes=tuple(
                Wish(wish["instruction"], tuple(wish["instruction_attributes"]), tuple(wish["instruction_options"]))
                for wish in wishes
            ),
        )
    except (KeyError, TypeError, AttributeError, InvalidOperation) as error:
        raise CatalogueError(
            f"{place} ({record['asin']}) has not the official form ({type(error).__name__}: {error}); download the "
            "files again, all of the same release."
        ) from error


def _prices(text: str | None) -> tuple[float, ...]:
    if not text:
        return ()
    return tuple(float(Decimal(_DOLLARS.sub("", part))) for part in text.split("$")[1:])[:2]


def _options(record: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {
        name.lower(): tuple(content["value"].strip().replace("/", " | ").lower() for content in contents)
        for name, contents in record.items()
        if contents is not None
    }
