"""ragkit: how people's preferences train a retrieval system, by doing.

`import ragkit` is cheap: a name's module, and with it torch, transformers or faiss, loads when first used.
"""

import os
from importlib import import_module

# OpenMP's threads spin while they wait for each other; where more runs than there are cores, they spin away
# the time that the others need, and encoding is ten times slower (tests/benchmarks/busy.py). It is read once,
# when torch is loaded, so import ragkit before torch; later it changes nothing. What is set stays.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

_NAMES = {
    "corpus": ("Passage", "Hit", "load_passages"),
    "text": ("split_text", "split_sentences"),
    "encoder": ("Encoder",),
    "evaluation": ("Interval", "PerQuery", "evaluate", "load_qrels", "load_queries", "paired_interval"),
    "losses": (
        "margin",
        "pair_loss",
        "grpo_loss",
        "dpo_loss",
        "offset_dpo_loss",
        "robust_dpo_loss",
        "ipo_loss",
        "gpo_loss",
        "plackett_luce_loss",
        "preference_metrics",
    ),
    "group_relative": ("group_advantages", "group_relative_loss"),
    "log_probs": ("completion_log_probs",),
    "library": ("Library", "retrieve", "lexical_search", "hybrid_search", "fuse"),
    "evidence": ("Evidence", "select_evidence"),
    "prompt": ("Prompt", "build_prompt"),
    "generator": ("Answer", "Generator"),
    "reranker": ("Reranker",),
    "report": ("FitReport",),
    "preferences": ("Comparison", "Feedback", "Pairs", "PreferenceLog", "Ranking", "pairs_of"),
    "widgets": ("ChatApp", "CompareAnswers", "RankDocuments"),
    "assistant": ("Assistant", "Turn"),
    "follow_up": ("complete_follow_up",),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
_MODULES = {*_NAMES, "strengths", "trl_trainer"}
__all__ = sorted(_MODULE_OF)
__version__ = "0.1.0"


def __getattr__(name: str):
    if name in _MODULES:
        return import_module(f"ragkit.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ragkit' has no attribute {name!r}")
    return getattr(import_module(f"ragkit.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
