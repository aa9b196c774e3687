"""Passages as rows of Milvus, and rows in portions that go at once."""

import hashlib
import json
from collections.abc import Iterable, Iterator

import numpy as np

from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.milvus_collection import FIELDS

PAGE = 1_000  # rows that are asked for at once


def row_key(passage_id: str) -> str:
    """A row's primary key. pymilvus pastes keys between quotes into filters, where ids could say anything."""
    return hashlib.sha256(passage_id.encode("utf-8", "surrogatepass")).hexdigest()


def row_strings(passage: Passage) -> dict[str, str]:
    """Its FIELDS."""
    return vars(passage) | {"metadata": json.dumps(passage.metadata, ensure_ascii=False)}


def row_passage(row: dict) -> Passage:
    """The passage of its FIELDS."""
    return Passage(row["id"], row["text"], row["title"], json.loads(row["metadata"]))


def row_vector(row: dict) -> np.ndarray:
    """(D,), float32."""
    return np.array(row["vector"], dtype=np.float32)


def row_order(row: dict) -> tuple[int, str]:
    """What rows are sorted by, to stand as they came."""
    return row["number"], row["id"]


def requests(rows: Iterable[dict], most: int) -> Iterator[list[dict]]:
    """Rows to be written, in requests of at most so many bytes, or of one row."""
    batch, size = [], 0
    for row in rows:
        weight = row["vector"].nbytes + 4 * sum(len(row[name]) for name in FIELDS)
        if batch and size + weight > most:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += weight
    if batch:
        yield batch


def pages(things: list) -> list[list]:
    """PAGE of them at a time."""
    return [things[at : at + PAGE] for at in range(0, len(things), PAGE)]
