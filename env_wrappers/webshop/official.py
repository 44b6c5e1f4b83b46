"""The official product files, read and checked."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO, TypeVar

from env_wrappers.data_files import LeftOut
from env_wrappers.webshop.nouns import title_nouns
from env_wrappers.webshop.products import Product, Wish

logger = logging.getLogger(__name__)
T = TypeVar("T")

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


def check_readable(path: Path) -> None:
    """Raises CatalogueError if a file cannot be read."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise CatalogueError(f"{path} cannot be read ({error.strerror}); mend its permissions, or its disk.") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_products(files: Files) -> Iterator[Product]:
    """The products of the official files, in their order. One that is broken is left out, and said at the end.

    Raises:
        CatalogueError: a file is corrupt, or no record in it is a product.
    """
    attributes = _read(files.attributes, dict)
    wishes = _read(files.human, dict) if files.human else {}
    nouns = _read(files.nouns, dict) if files.nouns else {}
    seen: set[str] = set()
    left_out = LeftOut()
    for number, record in enumerate(_records(files.products)):
        asin = record.get("asin") if isinstance(record, dict) else None
        # As the published environment does: no second product of an id, and none without a proper one.
        if isinstance(asin, str) and (asin == "nan" or len(asin) > 10 or asin in seen):
            continue
        try:
            product = _product(record, attributes, wishes, nouns)
        except _FieldError as error:
            name = f"product {number}" + (f", {asin}" if isinstance(asin, str) else "")
            left_out.lose(f"with a wrong {error.field}", f"{name}: {error}")
            continue
        seen.add(product.asin)
        yield product
    if not seen:
        raise CatalogueError(f"{files.products} holds no product: {left_out or 'it is empty'}. Download it again.")
    if left_out.broken:
        logger.warning(
            "%s: %d products, and left out: %s. Download the files again, all of the same release, to have all.",
            files.products,
            len(seen),
            left_out,
        )


def _read(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CatalogueError(f"{path} is no JSON ({error}); download it again.") from error
    if not isinstance(content, kind):
        raise CatalogueError(f"{path} holds a {type(content).__name__}, not a {kind.__name__}; download it again.")
    return content


def _records(path: Path) -> Iterator[Any]:
    """The elements of a JSON list, one after the other: the full product file has five gigabytes."""
    decoder = json.JSONDecoder()
    number = 0
    with path.open(encoding="utf-8-sig") as file:
        text = _read_piece(file, CHUNK, path).lstrip()
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
            except RecursionError as error:
                raise CatalogueError(f"{path} is damaged after {number} products: {error}") from error
            except json.JSONDecodeError as error:
                more = _read_piece(file, max(CHUNK, len(text)), path) if rest else ""
                if not more:
                    raise CatalogueError(
                        f"{path} breaks off or is damaged after {number} products ({error.msg}); download it again."
                    ) from error
                text, position, rest = text[position:] + more, 0, bool(more)


def _read_piece(file: TextIO, characters: int, path: Path) -> str:
    try:
        return file.read(characters)
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{path} is no text in UTF-8 ({error}); download it again.") from error


class _FieldError(Exception):
    """A field of a record is not as the official files have it."""

    def __init__(self, field: str, value: Any, wanted: str) -> None:
        super().__init__(f"{field} is {value!r:.80}, not {wanted}")
        self.field = field


def _field(name: str, value: Any, wanted: str, read: Callable[[Any], T]) -> T:
    """What `read` makes of a field. `wanted` is for the message."""
    try:
        return read(value)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise _FieldError(name, value, wanted) from error


def _product(
    record: Any, all_attributes: Mapping[str, Any], all_wishes: Mapping[str, Any], all_nouns: Mapping[str, Any]
) -> Product:
    if not isinstance(record, dict):
        raise _FieldError("record", record, "a record")
    asin, name, description, query = (_field(key, record.get(key), "a text", _text) for key in _TEXT)
    extra = _field("attributes", all_attributes.get(asin) or {}, "a record", _record)
    nouns = all_nouns.get(asin)
    return Product(
        asin=asin,
        title=name,
        description=description,
        bullets=_field("small_description", record.get("small_description"), "a text or a list of texts", _bullets),
        prices=_field("pricing", record.get("pricing"), "a price such as '$12.99' or '$10.00 to $12.99'", _prices),
        options=_field("customization_options", record.get("customization_options") or {}, "values by name", _options),
        attributes=_field("attributes", extra.get("attributes", NO_ATTRIBUTES), "a list of texts", _texts),
        # Nothing published fails without these until the product is bought.
        category=_field("category", record.get("category") or "", "a text", _text),
        query=query.lower().strip(),
        product_category=_field("product_category", record.get("product_category") or "", "a text", _text),
        nouns=title_nouns(name) if nouns is None else _field("title nouns", nouns, "a list of texts", _texts),
        instruction=_field("instruction", extra.get("instruction"), "a text or null", _text_or_none),
        instruction_attributes=_field(
            "instruction_attributes", extra.get("instruction_attributes") or (), "a list of texts", _texts
        ),
        wishes=_field("human instructions", all_wishes.get(asin, ()), "a list of instructions", _wishes),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _record(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return tuple(map(_text, value))


def _bullets(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (_text(value),)


def _wishes(value: Any) -> tuple[Wish, ...]:
    return tuple(
        Wish(_text(wish["instruction"]), _texts(wish["instruction_attributes"]), _texts(wish["instruction_options"]))
        for wish in value
    )


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
