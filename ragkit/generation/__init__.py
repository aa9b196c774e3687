"""From a question and its hits to an answer with sources."""

from ragkit.generation.decoding import PRIOR_SCALE
from ragkit.generation.follow_up import asks_nothing, complete_follow_up
from ragkit.generation.generator import Answer, Generator
from ragkit.generation.marginal import Marginal, answer_ids, posterior, rag_sequence, rag_token
from ragkit.generation.prompt import Evidence, Prompt, build_prompt, plain_ids, select_evidence
from ragkit.generation.query_training import (
    Asked,
    Candidates,
    QueryEncoder,
    compare_queries,
    train_query_encoder,
)
from ragkit.generation.smollm2 import base_folder

__all__ = [
    "PRIOR_SCALE",
    "Answer",
    "Asked",
    "Candidates",
    "Evidence",
    "Generator",
    "Marginal",
    "Prompt",
    "QueryEncoder",
    "answer_ids",
    "asks_nothing",
    "base_folder",
    "build_prompt",
    "compare_queries",
    "complete_follow_up",
    "plain_ids",
    "posterior",
    "rag_sequence",
    "rag_token",
    "select_evidence",
    "train_query_encoder",
]
