"""From a question and its hits to an answer with sources."""

from ragkit.generation.answer import ABSTENTION, Answer
from ragkit.generation.answer_loss import SIMPO
from ragkit.generation.decoding import PRIOR_SCALE
from ragkit.generation.follow_up import asks_nothing, complete_follow_up
from ragkit.generation.generator import Generator
from ragkit.generation.judged_answers import written_ids, written_text
from ragkit.generation.marginal import Marginal, answer_ids, posterior, rag_sequence, rag_token
from ragkit.generation.online import tune_online
from ragkit.generation.policy import Policy
from ragkit.generation.prompt import Evidence, Prompt, build_prompt, plain_ids, select_evidence
from ragkit.generation.query_training import (
    Asked,
    Candidates,
    QueryEncoder,
    compare_queries,
    train_query_encoder,
)
from ragkit.generation.rewards import citation_reward, length_reward, overlap_reward
from ragkit.generation.smollm2 import base_folder
from ragkit.generation.training_run import Tuned
from ragkit.generation.tuning import tune

__all__ = [
    "ABSTENTION",
    "PRIOR_SCALE",
    "SIMPO",
    "Answer",
    "Asked",
    "Candidates",
    "Evidence",
    "Generator",
    "Marginal",
    "Policy",
    "Prompt",
    "QueryEncoder",
    "Tuned",
    "answer_ids",
    "asks_nothing",
    "base_folder",
    "build_prompt",
    "citation_reward",
    "compare_queries",
    "complete_follow_up",
    "length_reward",
    "overlap_reward",
    "plain_ids",
    "posterior",
    "rag_sequence",
    "rag_token",
    "select_evidence",
    "train_query_encoder",
    "tune",
    "tune_online",
    "written_ids",
    "written_text",
]
