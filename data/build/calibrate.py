"""Set by what a generator chooses a sentence, and how sure it must be that one answers.

    python data/build/calibrate.py --model data/smollm2-reader --questions FOLDER
    python data/build/calibrate.py --model data/tiny-rag-lm --declined 0.1

On questions kept back for it: on training topics, and with `--questions` on paragraphs in SQuAD format. For
smollm2-reader it chooses how many sentences are read and how much the encoder's prior weighs, together, by
how often the supporting sentence is chosen; of equals the fewest and the least. Then, for both,
`none_similarity`: "none of them answers" stands in that choice as if it were a sentence of this similarity,
so that a share of the answerable questions, `--declined`, is declined. `python -m tests.benchmarks.reading`
measures on what nothing was chosen by.
"""

import argparse
import json
import math
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
from reading_cases import Case, corpus_cases, squad_cases

from ragkit.generation.generator import Generator
from ragkit.generation.reader import SETTINGS
from ragkit.retrieval.corpus import DATA
from ragkit.retrieval.encoder import Encoder

# Without any prior, a similarity of "none" would say nothing: 0 is shown and not chosen.
SCALES = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 14.0)
SENTENCES = (5, 6, 7, 8)

Scored = tuple[np.ndarray, np.ndarray, np.ndarray]


def scored(generator: Generator, case: Case) -> Scored:
    """log p_θ of each sentence, last of none, (n + 1,); their similarities, (n,); which is right, (n,)."""
    prompt = generator.prompt(case.query, case.hits)
    if not prompt.evidence:  # below the floor: declined, whatever is set
        return np.zeros(1), np.zeros(0), np.zeros(0, dtype=bool)
    similarities = np.array([piece.score for piece in prompt.evidence])
    right = np.array([piece.text == case.support for piece in prompt.evidence])
    return generator.citation_log_probs(prompt), similarities, right


def accuracy(found: Iterable[Scored], scale: float) -> float:
    """How often the largest of log p_θ + scale · similarity is the supporting sentence's."""
    chosen = [
        len(right) > 0 and right[int((logs[:-1] + scale * similarities).argmax())]
        for logs, similarities, right in found
    ]
    return float(np.mean(chosen))


def margins(found: Iterable[Scored], scale: float) -> np.ndarray:
    """Below which similarity of "none" each question is answered."""
    best = [(logs[:-1] + scale * near).max(initial=-np.inf) - logs[-1] for logs, near, _ in found]
    return np.array(best) / scale


def threshold(found: Iterable[Scored], scale: float, declined: float) -> float:
    """The similarity of "none" by which the share `declined` of these questions is declined."""
    return math.floor(1000 * np.quantile(margins(found, scale), declined)) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=DATA / "smollm2-reader", metavar="FOLDER")
    parser.add_argument("--questions", type=Path, metavar="FOLDER", help="files in SQuAD format")
    parser.add_argument("--limit", type=int, metavar="N", help="only so many questions of each set and kind")
    parser.add_argument("--declined", type=float, default=0.06, metavar="SHARE", help="of the answerable")
    arguments = parser.parse_args()
    encoder = Encoder()
    generator = Generator(str(arguments.model), encoder)
    sets = {"topics": corpus_cases(encoder, "dev", arguments.limit)}
    if arguments.questions:
        sets["paragraphs"] = squad_cases(arguments.questions, "dev", arguments.limit)

    found: dict[int, dict[str, list[Scored]]] = {}  # of the answerable, by sentences read and by set
    rows: list[tuple[float, int, float]] = []
    for count in SENTENCES if generator.reader else (generator.sentences,):
        generator.sentences = count
        found[count] = {
            name: [scored(generator, case) for case in kinds["answerable"]] for name, kinds in sets.items()
        }
        print(f"\n{count} sentences")
        for name, some in found[count].items():
            held = np.mean([right.any() for *_, right in some])
            print(f"  {name}: {len(some)} answerable, the supporting sentence is among them for {held:.1%}")
        for scale in SCALES:
            rows.append((accuracy(chain(*found[count].values()), scale), count, scale))
            shares = "  ".join(f"{name} {accuracy(some, scale):6.1%}" for name, some in found[count].items())
            print(f"  log p + {scale:4g} · similarity chooses it for {rows[-1][0]:6.1%}: {shares}")

    scale = generator.prior_scale
    if generator.reader:
        _, count, scale = max((row for row in rows if row[2]), key=lambda row: (row[0], -row[1], -row[2]))
    generator.sentences = count
    none = threshold(chain(*found[count].values()), scale, arguments.declined)
    for name, kinds in sets.items():
        for kind, cases in kinds.items():
            some = found[count][name] if kind == "answerable" else [scored(generator, case) for case in cases]
            if some:
                declined = np.mean(margins(some, scale) < none)
                print(f"{name}: {declined:6.1%} of {len(some)} declined, {kind}")

    path = arguments.model / (SETTINGS if generator.reader else "config.json")
    settings = json.loads(path.read_text(encoding="utf-8")) | {"none_similarity": none}
    if generator.reader:
        settings |= {"evidence_sentences": count, "prior_scale": scale}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    print(f"{path}: {count} sentences, prior_scale {scale:g}, none_similarity {none}")


if __name__ == "__main__":
    main()
