"""ragkit: how people's preferences train a retrieval system, by doing.

`import ragkit` is cheap: a name's module, and with it torch, transformers or faiss, loads when first used.
"""

import gc
import os
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec

# OpenMP's threads spin while they wait for each other; where more runs than there are cores, they spin away
# the time that the others need, and encoding is ten times slower. A thousand turns and then to sleep cost an
# idle machine next to nothing; never to spin costs it a tenth (tests/benchmarks/busy.py). It is read once,
# when torch is loaded, so import ragkit before torch; later it changes nothing. What is set stays.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"

_NAMES = {
    "retrieval": "Encoder Hit Library MilvusLibrary Passage fuse hybrid_search lexical_search load_passages "
    "retrieve retrieve_many split_sentences split_text",
    "preferences": "Comparison Feedback Pairs PreferenceLog Ranking pairs_of",
    "losses": "completion_log_probs dpo_loss gpo_loss group_advantages group_relative_loss grpo_loss "
    "ipo_loss margin offset_dpo_loss pair_loss plackett_luce_loss preference_metrics robust_dpo_loss",
    "evaluation": "Interval PerQuery evaluate load_qrels load_queries paired_interval",
    "generation": "Answer Evidence Generator Prompt build_prompt complete_follow_up select_evidence tune "
    "tune_online",
    "reranking": "AnswerScorer FitReport Reranker",
    "assistant": "Assistant Turn",
    "widgets": "ChatApp CompareAnswers LiveFigure RankDocuments",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)
__version__ = "0.2.0"


@contextmanager
def uncollected():
    """No garbage is looked for inside: what is made there stays, and to look through it again and again takes
    a sixth of the time of torch's import, and two thirds of that of a log's 100,000 events."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def __getattr__(name: str):
    if name in _MODULE_OF:
        with uncollected():
            return getattr(import_module(f"ragkit.{_MODULE_OF[name]}"), name)
    for module in (
        f"ragkit.{name}",
        *(f"ragkit.{folder}.{name}" for folder in _NAMES),
    ):  # a folder, or a room
        with suppress(ModuleNotFoundError):
            if find_spec(module):
                return import_module(module)
    raise AttributeError(f"module 'ragkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
