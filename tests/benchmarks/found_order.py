"""Where a reranker starts from: the order of the search's hits, or the encoder's own.

    python -m tests.benchmarks.found_order

Fits on some rankings of each simulated annotator that ships, and reranks the ten documents that
`Assistant.find` finds, by meaning and words, for questions on other topics, from either order. Graded by the
annotator's hidden utility, and by relevance alone: nDCG@3, with the 95 % interval of the difference over
questions.
"""

import argparse

import numpy as np

from data.build.simulate_annotators import ANNOTATORS
from ragkit import Assistant, PreferenceLog, Reranker
from ragkit.evaluation import load_qrels
from ragkit.evaluation.rankings import compare, measure
from ragkit.retrieval.corpus import DATA, read_jsonl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 20, 50])
    parser.add_argument("--questions", type=int, default=100)
    arguments = parser.parse_args()
    assistant, qrels = Assistant.load(generator="tiny-rag-lm"), load_qrels(DATA / "qrels.tsv")
    rows = [row for _, row in read_jsonl(DATA / "queries.jsonl")]
    rows = [row for row in rows if row["metadata"]["split"] == "test" and row["metadata"]["answerable"]]
    asked = [row["text"] for row in rows[: arguments.questions]]
    found = [assistant.find(query, 10) for query in asked]
    lists = [([hit.passage for hit in hits], [hit.score for hit in hits]) for hits in found]
    known = [(query, *one) for query, one in zip(asked, lists)]
    grades = [[qrels[row["_id"]].get(p.id, 0) for p in ps] for row, (_, ps, _) in zip(rows, known)]
    relevance = [np.array(own, float) for own in grades]
    words = [scores for *_, scores in known]
    meaning = [Reranker(assistant.encoder).base(*one[:2]) for one in known]
    print(
        "relevance, nDCG@3, nothing learned:",
        *(
            f"{name} {measure(scores, relevance, asked)['nDCG@3'].mean:.3f}"
            for name, scores in (("the search's order", words), ("the encoder's", meaning))
        ),
    )
    rankings = PreferenceLog(DATA / "preferences").rankings()
    for annotator in ANNOTATORS[:4]:  # the fifth differs from the fourth in what their pages did
        own = [r for r in rankings if r.annotator == annotator.name and r.details["split"] == "train"]
        own = [own[n] for n in np.random.default_rng(0).permutation(len(own))]
        felt = [
            np.array([annotator.utility(passage, grade) for passage, grade in zip(passages, some)])
            for (passages, _), some in zip(lists, grades)
        ]
        for size in arguments.sizes:
            reranker = Reranker(assistant.encoder)
            report = reranker.fit(own[:size], progress=False)
            encoders, searchs = ([reranker.score(*one[:count]) for one in known] for count in (2, 3))
            told = [compare(encoders, searchs, gains, asked) for gains in (felt, relevance)]
            print(
                f"{annotator.name:22} {size:3} rankings, {report.share:4.0%} believed:",
                "; ".join(
                    f"{of} {gain.base['nDCG@3']:.3f} → {gain.after['nDCG@3']:.3f}, {gain.intervals['nDCG@3']}"
                    for of, gain in zip(("utility", "relevance"), told)
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
