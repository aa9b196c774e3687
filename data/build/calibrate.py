"""Set how similar a sentence must be before tiny-rag-lm prefers it to "none of them answers".

    python data/build/calibrate_tiny_lm.py

In the choice of a sentence, "none" stands as if it were a sentence of a certain similarity. This sets that
number so that 10 % of the answerable questions on the training topics that were kept back are declined, and
prints what then happens, and for several weights of the encoder's prior how often the sentence chosen is the
supporting one. `python -m tests.benchmarks.reading` measures on what nothing was chosen by.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from tiny_lm_data import topics_of

from ragkit.generation.decoding import PRIOR_SCALE
from ragkit.generation.generator import Generator
from ragkit.retrieval.corpus import DATA, read_jsonl
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.library import Library, hybrid_search

FALSE_ABSTENTIONS = 0.1
SCALES = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 24.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=DATA / "tiny-rag-lm")
    model = parser.parse_args().model
    encoder = Encoder()
    library = Library.load(DATA / "index", encoder)
    generator = Generator(str(model), encoder)
    support = {row["query_id"]: row["support"] for _, row in read_jsonl(DATA / "answers.jsonl")}
    queries = [row for _, row in read_jsonl(DATA / "queries.jsonl")]
    kept_back = topics_of(queries, "dev")
    margins: dict[str, list[float]] = {}
    right: dict[float, list[bool]] = {scale: [] for scale in SCALES}
    nearest: list[bool] = []
    for query in queries:
        if query["metadata"].get("topic") not in kept_back:
            continue
        hits = hybrid_search(library, query["text"], encoder.encode_query(query["text"]), 3)
        prompt = generator.prompt(query["text"], hits)
        logs = generator.citation_log_probs(prompt)
        similarities = np.array([piece.score for piece in prompt.evidence])
        wanted = support.get(query["_id"])
        best = (logs[:-1] + PRIOR_SCALE * similarities).max(initial=-np.inf)  # below the floor: no sentence
        kind = "answerable" if wanted else query["metadata"]["kind"]
        margins.setdefault(kind, []).append(float(best - logs[-1]) / PRIOR_SCALE)
        if wanted and prompt.evidence:
            for scale, hit in right.items():
                chosen = int((logs[:-1] + scale * similarities).argmax())
                hit.append(prompt.evidence[chosen].text == wanted)
            nearest.append(prompt.evidence[0].text == wanted)
    print(f"the nearest sentence is the supporting one for {np.mean(nearest):.1%} of {len(nearest)}")
    for scale, hit in right.items():
        print(f"log p + {scale:g}·similarity: the supporting sentence for {np.mean(hit):.1%} of {len(hit)}")
    threshold = math.floor(1000 * np.quantile(margins["answerable"], FALSE_ABSTENTIONS)) / 1000
    for kind, found in sorted(margins.items()):
        print(f"{kind:10} {np.mean(np.array(found) < threshold):6.1%} of {len(found)} declined")
    path = model / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["none_similarity"] = threshold
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(f"none_similarity = {threshold} in {path}")


if __name__ == "__main__":
    main()
