"""Full-text search with the ranking of Lucene's BM25, in arrays that are held or mapped from a folder.

Lucene leaves out the factor (k1 + 1), rounds the lengths of documents to what fits a byte, and orders equal scores by
the document's id. Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework", section 3.4, has the formula.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from env_wrappers.webshop.analysis import terms

K1, B = 0.9, 0.4
BLOCK = 20_000  # documents that are held in memory while a large index is built

Array = npt.NDArray[Any]


class Texts(Sequence[bytes]):
    """Byte strings, one after the other in an array."""

    def __init__(self, blob: Array, ends: Array) -> None:
        """Args: blob: uint8 [bytes]. ends: int64 [texts + 1], where each ends, with a 0 in front."""
        self.blob, self.ends = np.asarray(blob), np.asarray(ends)

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Texts:
        """Texts from an iterable."""
        held = list(texts)
        ends = np.concatenate([[0], np.cumsum([len(text) for text in held], dtype=np.int64)]).astype(np.int64)
        return cls(np.frombuffer(b"".join(held), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: Any) -> Any:
        return self.blob[self.ends[index] : self.ends[index + 1]].tobytes()

    def find(self, text: bytes) -> int | None:
        """Where a text stands in sorted texts; None where it does not."""
        index = bisect.bisect_left(self, text)
        return index if index < len(self) and self[index] == text else None


class Postings:
    """Which documents have a key, and how often."""

    def __init__(self, keys: Texts, starts: Array, documents: Array, counts: Array) -> None:
        """Hold the arrays.

        Args:
            keys: sorted.
            starts: int64 [keys + 1], where the postings of each key start.
            documents: int32 [postings], ascending within a key.
            counts: uint16 [postings].
        """
        self.keys, self.starts = keys, np.asarray(starts)
        self.documents, self.counts = np.asarray(documents), np.asarray(counts)

    def span(self, key: str) -> slice | None:
        """The postings of a key."""
        index = self.keys.find(key.encode("utf-8", "surrogatepass"))
        return None if index is None else slice(int(self.starts[index]), int(self.starts[index + 1]))

    def save(self, folder: Path) -> None:
        """Write it, but for arrays that lie in the folder already."""
        arrays = {"keys": self.keys.blob, "key-ends": self.keys.ends, "starts": self.starts}
        save_arrays(folder, arrays | {"documents": self.documents, "counts": self.counts})

    @classmethod
    def load(cls, folder: Path) -> Postings:
        """Map what `save` wrote."""
        names = ("keys", "key-ends", "starts", "documents", "counts")
        blob, ends, starts, documents, counts = (load_array(folder / f"{name}.npy") for name in names)
        return cls(Texts(blob, ends), starts, documents, counts)


class PostingsBuilder:
    """Takes documents in, block by block, and sorts them by key with the memory of a block."""

    def __init__(self, folder: Path | None = None) -> None:
        """Args: folder: where blocks and results are written; None holds all in memory."""
        self.folder = folder
        self.lengths: list[int] = []  # keys of a document, with repetitions
        self._vocabulary: dict[str, int] = {}
        self._blocks: list[tuple[Array, Array, Array]] = []
        self._clear()

    def _clear(self) -> None:
        self._keys: list[int] = []
        self._counts: list[int] = []
        self._sizes: list[int] = []

    def add(self, keys: Iterable[str]) -> None:
        """The next document."""
        counted = Counter(keys)
        self.lengths.append(counted.total())
        vocabulary = self._vocabulary
        self._keys += [vocabulary.setdefault(key, len(vocabulary)) for key in counted]
        self._counts += counted.values()
        self._sizes.append(len(counted))
        if self.folder is not None and len(self._sizes) == BLOCK:
            self._flush()

    def _flush(self) -> None:
        first = len(self.lengths) - len(self._sizes)
        documents = np.repeat(np.arange(first, len(self.lengths), dtype=np.int32), self._sizes)
        keys = np.array(self._keys, np.int32)
        counts = np.minimum(np.array(self._counts, np.int64), 2**16 - 1).astype(np.uint16)
        if self.folder is not None:
            stem = f"block-{len(self._blocks)}"
            keys = _spooled(self.folder / f"{stem}-keys.npy", keys)
            documents = _spooled(self.folder / f"{stem}-documents.npy", documents)
            counts = _spooled(self.folder / f"{stem}-counts.npy", counts)
        self._blocks.append((keys, documents, counts))
        self._clear()

    def finish(self) -> Postings:
        """All postings, sorted by key and document."""
        self._flush()
        ordered = sorted(self._vocabulary)
        rank = np.empty(len(ordered), np.int64)
        rank[[self._vocabulary[key] for key in ordered]] = np.arange(len(ordered))
        totals = np.zeros(len(ordered), np.int64)
        for keys, _, _ in self._blocks:
            totals += np.bincount(rank[keys], minlength=len(ordered))
        starts = np.concatenate([[0], np.cumsum(totals)])
        documents = new_array(self.folder, "documents", np.int32, int(starts[-1]))
        counts = new_array(self.folder, "counts", np.uint16, int(starts[-1]))
        filled = starts[:-1].copy()
        for keys, block_documents, block_counts in self._blocks:
            ranks = rank[keys]
            here = np.bincount(ranks, minlength=len(ordered))
            firsts = np.cumsum(here) - here
            # By key, and documents as they came. What a block has of a key goes behind what earlier ones had.
            order = np.argsort(ranks, kind="stable")
            ranks = ranks[order]
            places = filled[ranks] + np.arange(len(ranks)) - firsts[ranks]
            documents[places], counts[places] = block_documents[order], block_counts[order]
            filled += here
        if self.folder is not None:
            for path in self.folder.glob("block-*.npy"):
                path.unlink()
        texts = Texts.of(key.encode("utf-8", "surrogatepass") for key in ordered)
        return Postings(texts, starts, documents, counts)


class Index:
    """Ranks documents by BM25."""

    def __init__(self, postings: Postings, weights: Array, ties: Array) -> None:
        """Hold the arrays.

        Args:
            postings: of terms.
            weights: float32 [postings], what a posting adds to the score of its document.
            ties: int32 [documents], rank of a document among equals.
        """
        self.postings, self.weights, self.ties = postings, np.asarray(weights), np.asarray(ties)

    @classmethod
    def build(cls, texts: Iterable[str], ids: Sequence[str], folder: Path | None = None) -> Index:
        """Index documents.

        Args:
            texts: of the documents.
            ids: of the documents; read after the texts, so it may grow while they are.
            folder: where to write; None holds all in memory.
        """
        builder = PostingsBuilder(folder)
        for text in texts:
            builder.add(terms(text))
        postings = builder.finish()
        ties = np.empty(len(ids), np.int32)
        ties[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids), dtype=np.int32)
        weights = new_array(folder, "weights", np.float32, len(postings.documents))
        for span, values in _weights(postings, np.array(builder.lengths, np.int64)):
            weights[span] = values
        return cls(postings, weights, ties)

    def save(self, folder: Path) -> None:
        """Write it, but for arrays that lie in the folder already."""
        self.postings.save(folder)
        save_arrays(folder, {"weights": self.weights, "ties": self.ties})

    @classmethod
    def load(cls, folder: Path) -> Index:
        """Map what `save` wrote."""
        return cls(Postings.load(folder), load_array(folder / "weights.npy"), load_array(folder / "ties.npy"))

    def search(self, query: str, limit: int) -> list[int]:
        """The best documents, best first.

        Args:
            query: words, of which a repeated one counts twice.
            limit: at most so many.
        """
        scores = np.zeros(len(self.ties), np.float32)
        for term in terms(query):
            span = self.postings.span(term)
            if span is not None:
                scores[self.postings.documents[span]] += self.weights[span]
        found = np.flatnonzero(scores)
        values = scores[found]
        if len(found) > limit:
            # All that are as good as the last one in, for ties to choose from.
            keep = values >= np.partition(values, len(values) - limit)[len(values) - limit]
            found, values = found[keep], values[keep]
        order = np.lexsort((self.ties[found], -values))[:limit]
        ranked: list[int] = found[order].tolist()
        return ranked


def _weights(postings: Postings, lengths: Array) -> Iterator[tuple[slice, Array]]:
    """What postings add to scores, a few million at a time."""
    number = int((lengths > 0).sum())
    average = lengths.sum() / max(number, 1)
    norms = K1 * (1 - B + B * rounded_length(lengths) / (average or 1.0))
    frequencies = np.diff(postings.starts)
    rarity = np.log(1 + (number - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
    step = 2**22
    for start in range(0, len(postings.documents), step):
        span = slice(start, start + step)
        keys = np.searchsorted(postings.starts, np.arange(start, min(start + step, postings.starts[-1])), "right") - 1
        counts = postings.counts[span]
        yield span, rarity[keys] * (1 - 1 / (1 + counts / norms[postings.documents[span]]))


def rounded_length(lengths: Array) -> Array:
    """Lengths as Lucene's one-byte code keeps them: exact below 40, then the four leading bits, rounded down.

    Args:
        lengths: integers, 0 or more.

    Returns:
        float64 of the same shape.
    """
    above = np.maximum(np.asarray(lengths, np.int64) - 24, 0)
    shift = np.maximum(np.floor(np.log2(np.maximum(above, 1))).astype(np.int64) - 3, 0)
    return np.where(lengths < 24, lengths, 24 + ((above >> shift) << shift)).astype(np.float64)


def new_array(folder: Path | None, name: str, dtype: Any, length: int) -> Array:
    """An array of zeros, in memory or in a file of a folder."""
    if folder is None or length == 0:
        return np.zeros(length, dtype)
    return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=(length,))


def save_arrays(folder: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays, but for those whose file is there already."""
    for name, array in arrays.items():
        if not (folder / f"{name}.npy").exists():
            np.save(folder / f"{name}.npy", array)


def load_array(path: Path) -> Array:
    """Map an array from its file."""
    return np.asarray(np.load(path, mmap_mode="r"))


def _spooled(path: Path, array: Array) -> Array:
    np.save(path, array)
    return load_array(path)
