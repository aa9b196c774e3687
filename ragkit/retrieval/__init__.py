"""From texts to vectors, and from a query vector to the k nearest passages."""

from ragkit.retrieval.corpus import DATA, Hit, Passage, load_passages, read_jsonl
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.lexical import fuse, hybrid_search, lexical_search
from ragkit.retrieval.library import Library
from ragkit.retrieval.milvus import MilvusLibrary
from ragkit.retrieval.pieces import split_text
from ragkit.retrieval.search import retrieve, retrieve_many
from ragkit.retrieval.text import sentences_with_sections, split_sentences

__all__ = [
    "DATA",
    "Encoder",
    "Hit",
    "Library",
    "MilvusLibrary",
    "Passage",
    "fuse",
    "hybrid_search",
    "lexical_search",
    "load_passages",
    "read_jsonl",
    "retrieve",
    "retrieve_many",
    "sentences_with_sections",
    "split_sentences",
    "split_text",
]
