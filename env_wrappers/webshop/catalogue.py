"""All that the shop sells, with its search index and its goals: in memory, or mapped from a folder.

A small catalogue is built by each process in a second. A large one is built once into the user's cache folder, and all
processes of the machine map the same files, so that a further one needs little memory of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from env_wrappers.cache import cache_folder
from env_wrappers.core import whole_number
from env_wrappers.data_files import data_path
from env_wrappers.webshop import generator, goals, official
from env_wrappers.webshop.index import Array, Index, Postings, PostingsBuilder, Texts, load_array, save_arrays
from env_wrappers.webshop.products import Product
from env_wrappers.webshop.reward import Goal

FORMAT = 1  # of stored catalogues; raised when what is stored changes
SEARCH_RESULTS = 50
LARGE_PRODUCTS = 5_000  # generated; more are stored
LARGE_BYTES = 64 * 2**20  # of an official product file; a larger one is stored
KEPT_PRODUCTS = 256  # that a process keeps parsed, of a stored catalogue


class StoredProducts(Sequence[Product]):
    """Products in a file, parsed when they are asked for."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._get = lru_cache(maxsize=KEPT_PRODUCTS)(lambda row: Product.from_bytes(texts[row]))

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, row: Any) -> Any:
        return self._get(row)


@dataclass(frozen=True)
class Catalogue:
    """Products by row; everything else refers to rows.

    Attributes:
        name: what it is, for messages.
        products: in the order of the file.
        asins: sorted.
        rows: int32 [products], the row of each of `asins`.
        index: full-text search.
        groups: products by category ("c:fashion"), query ("q:sofas") and attribute ("a:high heel").
        pairs: the goals of each kind in their fixed order, as `goals.arrange` has them.
        parts: by "kind division", the split of each goal, as `goals.divide` has them.
    """

    name: str
    products: Sequence[Product]
    asins: Texts
    rows: Array
    index: Index
    groups: Postings
    pairs: dict[str, Array]
    parts: dict[str, Array]

    def row_of(self, asin: str) -> int | None:
        """The row of a product; None for an unknown id."""
        place = self.asins.find(asin.encode("utf-8", "surrogatepass"))
        return None if place is None else int(self.rows[place])

    def goal(self, kind: str, number: int) -> Goal:
        """The goal with a place in the fixed order."""
        row, choice = self.pairs[kind][number].tolist()
        return goals.make_goal(self.products[row], kind, choice)

    @cached_property
    def search(self) -> Callable[[str], tuple[int, ...]]:
        """Rows of the results of a query, best first; at most 50, but for the shop's own groups."""
        return lru_cache(maxsize=1024)(self._search)  # the episodes of a group search the same things

    def _search(self, query: str) -> tuple[int, ...]:
        first, *rest = query.split(" ")
        if first == "<r>":
            rows = range(len(self.products))
            return tuple(random.Random(query).sample(rows, min(SEARCH_RESULTS, len(rows))))
        if first in ("<a>", "<c>", "<q>"):
            words = rest[:1] if first == "<c>" else rest
            span = self.groups.span(f"{first[1]}:{' '.join(words).strip()}")
            return () if span is None else tuple(self.groups.documents[span].tolist())
        return tuple(self.index.search(query, SEARCH_RESULTS))


def open_catalogue(catalogue: str | os.PathLike[str] | None, num_products: int, seed: int) -> Catalogue:
    """The catalogue for the arguments of an environment; the same object for the same arguments.

    Args:
        catalogue: a folder with the official files; None for a generated one.
        num_products: of a generated one.
        seed: of a generated one.

    Raises:
        FileNotFoundError: the folder or a file in it does not exist.
        CatalogueError: a file is corrupt.
        ValueError: an argument is out of range.
    """
    if catalogue is None:
        number = whole_number(num_products)
        if number is None or not 1 <= number <= generator.MAX_PRODUCTS:
            raise ValueError(f"num_products={num_products!r}: give a number from 1 to {generator.MAX_PRODUCTS:,}.")
        return _open_generated(number, seed)
    folder = data_path("catalogue", catalogue).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"catalogue={catalogue!r}: no folder {folder}. Give the one with the official files, or leave catalogue "
            "out for a generated one."
        )
    files = official.find_files(folder)
    for path in files.present():
        official.check_readable(path)
    stamp = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files.present())
    return _open_official(folder, files, stamp)


@cache
def _open_generated(num_products: int, seed: int) -> Catalogue:
    name = f"the generated catalogue of {num_products:,} products, seed {seed}"
    products = (generator.make_product(seed, row) for row in range(num_products))
    if num_products <= LARGE_PRODUCTS:
        return build(name, products)
    return _stored(name, f"generated-{generator.VERSION}-{num_products}-{seed}", lambda: products)


@cache
def _open_official(folder: Path, files: official.Files, stamp: tuple[tuple[str, int, int], ...]) -> Catalogue:
    def read() -> Iterator[Product]:
        official.check_sums(folder, files)
        return official.read_products(files)

    if files.products.stat().st_size <= LARGE_BYTES:
        return build(str(folder), read())
    key = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:16]
    return _stored(str(folder), f"official-{key}", read)


def build(name: str, products: Iterable[Product], folder: Path | None = None) -> Catalogue:
    """Index products and list their goals.

    Args:
        name: of the catalogue, for messages.
        products: each is read once.
        folder: where to write it for `load`; None holds it in memory.
    """
    asins: list[str] = []
    held: list[Product] = []
    ends: list[int] = [0]
    counts: dict[str, list[int]] = {kind: [] for kind in goals.KINDS}
    wordings = {kind: array("q") for kind in goals.KINDS}
    groups = PostingsBuilder(_subfolder(folder, "groups"))
    blob = (folder / "products.bin").open("wb") if folder else None

    def texts() -> Iterator[str]:
        for product in products:
            asins.append(product.asin)
            if blob is None:
                held.append(product)
            else:
                ends.append(ends[-1] + blob.write(product.to_bytes()))
            groups.add([f"c:{product.category}", f"q:{product.query}", *{f"a:{name}" for name in product.attributes}])
            for kind in goals.KINDS:
                number = goals.count(product, kind)
                counts[kind].append(number)
                said = (goals.wording(product, kind, choice).lower() for choice in range(number))
                wordings[kind].extend(_number_of(text) for text in said)
            yield product.search_text()

    index = Index.build(texts(), asins, _subfolder(folder, "index"))
    order = sorted(range(len(asins)), key=asins.__getitem__)
    keys = Texts.of(asins[row].encode("utf-8", "surrogatepass") for row in order)
    rows = np.array(order, np.int32)
    pairs, parts = {}, {}
    for kind in goals.KINDS:
        pairs[kind], places = goals.arrange(counts[kind])
        numbers = np.array(wordings[kind], np.int64)[places]
        for division in goals.DIVISIONS:
            parts[f"{kind} {division}"] = goals.divide(pairs[kind], division, numbers)
    if folder is not None and blob is not None:
        blob.close()
        arrays = {"asins": keys.blob, "asin-ends": keys.ends, "rows": rows, "product-ends": np.array(ends, np.int64)}
        arrays |= {f"pairs {kind}": array for kind, array in pairs.items()}
        arrays |= {f"parts {kind}": array for kind, array in parts.items()}
        save_arrays(folder, arrays)
        index.save(folder / "index")
        groups.finish().save(folder / "groups")
        return load(name, folder)
    return Catalogue(name, held, keys, rows, index, groups.finish(), pairs, parts)


def load(name: str, folder: Path) -> Catalogue:
    """Map a catalogue that `build` wrote."""

    def mapped(stem: str) -> Array:
        return load_array(folder / f"{stem}.npy")

    blob = np.memmap(folder / "products.bin", np.uint8, mode="r")
    return Catalogue(
        name,
        StoredProducts(Texts(blob, mapped("product-ends"))),
        Texts(mapped("asins"), mapped("asin-ends")),
        mapped("rows"),
        Index.load(folder / "index"),
        Postings.load(folder / "groups"),
        {kind: mapped(f"pairs {kind}") for kind in goals.KINDS},
        {
            f"{kind} {division}": mapped(f"parts {kind} {division}")
            for kind in goals.KINDS
            for division in goals.DIVISIONS
        },
    )


def _number_of(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True
    )


def _subfolder(folder: Path | None, name: str) -> Path | None:
    if folder is None:
        return None
    (folder / name).mkdir()
    return folder / name


def _stored(name: str, key: str, products: Callable[[], Iterable[Product]]) -> Catalogue:
    """A catalogue in the cache folder, built if this machine never did."""
    target = cache_folder() / f"webshop-{FORMAT}-{key}"
    with _locked(target.with_name(target.name + ".lock")):
        if not target.exists():
            # Written beside its place and moved there: what has the name is whole.
            temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=target.name))
            try:
                build(name, products(), temporary)
                temporary.chmod(0o755)
                temporary.rename(target)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
    return load(name, target)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
