"""From a question and its hits to an answer with sources."""

from ragkit.generation.decoding import PRIOR_SCALE
from ragkit.generation.follow_up import asks_nothing, complete_follow_up
from ragkit.generation.generator import Answer, Generator
from ragkit.generation.prompt import Evidence, Prompt, build_prompt, plain_ids, select_evidence
from ragkit.generation.smollm2 import base_folder

__all__ = [
    "PRIOR_SCALE",
    "Answer",
    "Evidence",
    "Generator",
    "Prompt",
    "asks_nothing",
    "base_folder",
    "build_prompt",
    "complete_follow_up",
    "plain_ids",
    "select_evidence",
]
