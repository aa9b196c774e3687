"""A library's files: what is written into them, and what is checked when they are read."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ragkit.retrieval.checks import refuse_broken
from ragkit.retrieval.corpus import Passage, read_jsonl
from ragkit.retrieval.indexes import FLAT, Recall, flat_rows, new_index
from ragkit.retrieval.sentences import Sentences, write_blocks
from ragkit.retrieval.storage import PASSAGES, SENTENCES, VECTORS, LibraryFolder


def passage_line(number: int, passage: Passage) -> str:
    """A line of the file of passages; `number` is the name of its vector."""
    row = {"n": number, "_id": passage.id, "title": passage.title, "text": passage.text}
    return json.dumps(row | {"metadata": passage.metadata}, ensure_ascii=False) + "\n"


def library_facts(
    encoder: str, fingerprint: str, dimension: int, index: str, found: Recall | None, sentences: bool
) -> dict:
    """What a manifest says of a library: by which encoder, of which kind of index, whether with sentences."""
    facts = {"encoder": encoder, "fingerprint": fingerprint, "dimension": dimension}
    facts |= {"sentences": True} if sentences else {}
    if index != FLAT:
        facts |= {"index": index, "recall": found.facts() if found else None}
    return facts


def library_writers(
    index, passages: dict[int, Passage], sentences: Sentences | None
) -> dict[str, Callable[[Path], None]]:
    """What `LibraryFolder.write` writes its files with."""
    import faiss

    def write_passages(path: Path) -> None:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(passage_line(number, passage) for number, passage in passages.items())

    writers = {VECTORS: lambda path: faiss.write_index(index, str(path)), PASSAGES: write_passages}
    if sentences is not None:
        writers[SENTENCES] = lambda path: write_blocks(path, sentences.blocks())
    return writers


def read_library(versions: LibraryFolder, manifest: dict, mmap: bool):
    """(FAISS index, {number: passage}, recall, sentences) on disk. Raises ValueError for what is damaged."""
    import faiss

    paths, kind, dimension = versions.files(manifest), manifest.get("index", FLAT), manifest["dimension"]
    try:
        # IO_FLAG_MMAP alone maps inverted files only, and reads the rest into memory without a word.
        index = faiss.read_index(str(paths["vectors"]), faiss.IO_FLAG_MMAP_IFC if mmap else 0)
        _check_kind(index, kind)
        passages = {}
        for _, row in read_jsonl(paths["passages"]):
            passages[row["n"]] = Passage(row["_id"], row["text"], row["title"], row["metadata"])
        refuse_broken(passages.values())
        found = Recall(**told) if (told := manifest.get("recall")) else None
        sentences = None
        if "sentences" in paths:
            sentences = Sentences.load(paths["sentences"], passages, dimension, mmap)
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{versions.path} is damaged ({error}); build the library again") from error
    if kind == FLAT and not mmap and not np.isfinite(flat_rows(index)).all():  # it would read what is mapped
        raise ValueError(f"{versions.path}: its vectors hold NaN or infinity; build the library again")
    stored = set(faiss.vector_to_array(index.id_map).tolist())
    ids = {passage.id for passage in passages.values()}
    if index.d != dimension or stored != set(passages) or len(ids) < len(passages):
        raise ValueError(
            f"{versions.path}: vectors and passages do not belong together "
            f"({index.ntotal} vectors of {index.d} dimensions, {len(passages)} passages of "
            f"{dimension}); build the library again"
        )
    return index, passages, found, sentences


def _check_kind(index, kind: str) -> None:
    """Raises ValueError where an index is of another kind than the manifest says."""
    import faiss

    if not isinstance(index, faiss.IndexIDMap2) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError("its index numbers no passages, or measures otherwise than by inner product")
    fresh = new_index(kind, index.d)
    found, expected = (type(faiss.downcast_index(one.index)) for one in (index, fresh))
    if not issubclass(found, faiss.IndexFlat if kind == FLAT else expected):
        raise ValueError(f"its index is a {found.__name__}, and not {kind!r}")
