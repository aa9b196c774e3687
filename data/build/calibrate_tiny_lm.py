"""Set how similar a sentence must be before tiny-rag-lm prefers it to "none of them answers".

    python data/build/calibrate_tiny_lm.py

In the choice of a sentence, "none" stands as if it were a sentence of a certain similarity. This sets that
number so that 8 % of the answerable questions on training topics are declined, and prints what then
happens on test topics, and how often the sentence chosen is the supporting one.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

from ragkit.corpus import DATA, read_jsonl
from ragkit.encoder import Encoder
from ragkit.evaluation import paired_interval
from ragkit.generator import Generator
from ragkit.grounding import PRIOR_SCALE
from ragkit.library import Library, retrieve

FALSE_ABSTENTIONS = 0.08


def choose(generator: Generator, query: str, hits: list) -> tuple[float, str, str]:
    """(similarity of "none" at which the model would just decline, the sentence it chooses, the nearest)."""
    prompt = generator.prompt(query, hits)
    names = [f"[{n}]" for n in range(1, len(prompt.evidence) + 1)]
    tokens = generator.tokenizer.convert_tokens_to_ids([*names, "<none>"])
    with torch.inference_mode():
        row = generator._model(torch.tensor([prompt.ids])).logits[0, -1, tokens]
    logs = row.log_softmax(0).tolist()
    scores = [log + PRIOR_SCALE * piece.score for log, piece in zip(logs, prompt.evidence)]
    chosen = prompt.evidence[scores.index(max(scores))]
    return (max(scores) - logs[-1]) / PRIOR_SCALE, chosen.text, prompt.evidence[0].text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=DATA / "tiny-rag-lm")
    model = parser.parse_args().model
    encoder = Encoder()
    library = Library.load(DATA / "index", encoder)
    generator = Generator(str(model), encoder)
    support = {row["query_id"]: row["support"] for _, row in read_jsonl(DATA / "answers.jsonl")}
    margins: dict[tuple[str, str], list[float]] = {}
    right: dict[str, list[tuple[bool, bool]]] = {}
    for _, query in read_jsonl(DATA / "queries.jsonl"):
        about = query["metadata"]
        kind = about["kind"] if about["kind"] in ("near miss", "off topic") else "answerable"
        hits = retrieve(library, encoder.encode_query(query["text"]), 3)
        margin, chosen, nearest = choose(generator, query["text"], hits)
        margins.setdefault((about["split"], kind), []).append(margin)
        if wanted := support.get(query["_id"]):
            right.setdefault(about["split"], []).append((chosen == wanted, nearest == wanted))
    threshold = float(np.quantile(margins["train", "answerable"], FALSE_ABSTENTIONS))
    threshold = math.floor(threshold * 1000) / 1000
    for (split, kind), found in sorted(margins.items()):
        print(f"{split:5} {kind:10} {np.mean(np.array(found) < threshold):6.1%} of {len(found)} declined")
    for split, pairs in sorted(right.items()):
        chosen, nearest = np.array(pairs, dtype=float).T
        difference = paired_interval(nearest, chosen)
        shares = f"chosen {chosen.mean():.1%}, nearest {nearest.mean():.1%}"
        print(f"{split:5} the supporting sentence: {shares}, difference {difference}")
    path = model / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["none_similarity"] = threshold
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(f"none_similarity = {threshold} in {path}")


if __name__ == "__main__":
    main()
