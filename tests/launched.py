"""What `tests/test_data_parallel.py` launches in one process and in two: a curve of each training, as JSON.

python -m torch.distributed.run --nproc-per-node 2 tests/launched.py FOLDER what …
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from ragkit import Comparison, Encoder, Generator, Hit, Passage, Ranking, Reranker, tune, tune_online
from ragkit.generation import length_reward, online, tuning
from ragkit.losses.data_parallel import Processes, processes

TOPICS = "bridge tower harbour station museum library theatre school market".split()  # 7 to train on, and 2
ENDINGS = ["", " by the town", " by the people of the town, who had long wished for it"]


def questions() -> list[tuple[str, list[Hit]]]:
    """With documents of different lengths."""
    found = []
    for n, topic in enumerate(TOPICS):
        text = (
            f"The {topic} was built in {1800 + n}{ENDINGS[n % 3]}. Many people visit the {topic} each year."
        )
        found.append((f"When was the {topic} built?", [Hit(Passage(topic, text * (1 + n % 2)), 1.0, 1)]))
    return found


def comparisons() -> list[Comparison]:
    found = []
    for n, (query, hits) in enumerate(questions()):
        sentence = hits[0].passage.text.split(". ")[0] + "."
        found.append(Comparison(query, f"in {1800 + n}", sentence, -1 - n % 3, hits=hits))
    return found


def rankings() -> list[Ranking]:
    """Of three to five documents each; the shorter one is always preferred."""
    found = []
    for n, topic in enumerate(TOPICS * 2):
        texts = [f"The {topic} was built {n}{ENDINGS[k % 3]}. " * (1 + k) for k in range(3 + n % 3)]
        order = np.random.default_rng(n).permutation(len(texts)).tolist()
        documents = [Passage(f"{n} {k}", texts[k]) for k in order]
        tiers = [[place] for place in np.argsort(order).tolist()]
        found.append(Ranking(f"When was the {topic} built, {n}?", documents, tiers))
    return found


def curve(log: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in log]


def run(generator, **settings):
    settings = {"epochs": 2, "batch": 4, "held_out": 0.2, "looks": 4, "progress": False} | settings
    return tune(generator, comparisons(), learning_rate=3e-3, **settings)


def tuned(generator, **settings) -> list[dict]:
    return curve(run(generator, **settings).log)


def rewarded(generator, encoder) -> list[dict]:
    settings = {"group": 4, "steps": 2, "batch": 3, "looks": 1, "max_new_tokens": 12, "progress": False}
    return curve(tune_online(generator, questions(), length_reward(6), aggregation="dapo", **settings).log)


def reranked(encoder, capacity: str) -> dict:
    reranker, given = Reranker(encoder, capacity), rankings()
    report = reranker.fit(given, progress=False)
    scores = [reranker.score(one.query, one.passages).tolist() for one in given[:4]]
    return {"scores": scores, "share": report.share, "kl": report.kl}


def in_trouble(generator, how: str) -> dict:
    """The main process alone is, in the middle of the run: it alone is shown the log."""
    seen = []

    def stop(row):
        seen.append(row["step"])
        if row["step"] < 1:
            return
        if how == "dies":
            os._exit(7)
        raise KeyboardInterrupt if how == "interrupted" else OSError("the disk is full")

    facts = {}
    try:
        found = run(generator, on_log=stop)
    except (OSError, RuntimeError) as error:
        found, facts = error.tuned, {"error": type(error).__name__, "says": str(error)}
    steps = [row["step"] for row in found.log]
    return facts | {"interrupted": found.interrupted, "seen": seen, "steps": steps}


def refused(generator) -> str:
    try:
        return tuned(generator, beta=0.1 + processes().number)
    except ValueError as error:
        return str(error)


def main(folder: str, *names: str) -> None:
    encoder = Encoder(device="cpu")
    generator = Generator("tiny-rag-lm", encoder, device="cpu")
    tuning.SAMPLED, online.HELD_OUT_ANSWERS = 1, 2
    norms = []  # of each step's gradient

    def summed(self, weights, real=Processes.sum_gradients):
        real(self, weights)
        norms.append(sum(weight.grad.norm().item() ** 2 for weight in weights) ** 0.5)

    Processes.sum_gradients = summed
    runs = {
        "grpo": lambda: tuned(generator),
        "kto": lambda: tuned(generator, loss="kto", batch=3, epochs=1),
        "ipo": lambda: tuned(
            generator, loss="ipo", supervised=0.5, batch=1, epochs=1
        ),  # one process has none
        "online": lambda: rewarded(generator, encoder),
        "linear": lambda: reranked(encoder, "auto"),
        "cross": lambda: reranked(encoder, "cross-encoder"),
        "other": lambda: refused(generator),
        **{how: lambda how=how: in_trouble(generator, how) for how in ("interrupted", "broken", "dies")},
    }
    for name in names:
        norms.clear()
        found = {"found": runs[name](), "norms": norms}
        Path(folder, f"{name}-{processes().number}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
