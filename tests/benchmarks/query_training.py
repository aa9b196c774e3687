"""What training the query encoder gains on test topics: `python -m tests.benchmarks.query_training`.

Trained on this repo's questions on training topics, answered by the sentence that supports the answer (or
`--answers answer`, `key`), scored once by the generator over the k passages that the encoder finds.
"""

import argparse
import time

import torch

from ragkit.evaluation.measures import evaluate, load_qrels, paired_interval
from ragkit.generation.generator import Generator
from ragkit.generation.query_training import FORMULAS, Asked, Candidates, compare_queries, train_query_encoder
from ragkit.retrieval.corpus import DATA, read_jsonl
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.lexical import hybrid_search
from ragkit.retrieval.library import Library

MEASURES = ("nDCG@10", "R@3", "R(rel=2)@3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--generator", default="tiny-rag-lm")
    parser.add_argument("--answers", default="support", choices=["support", "answer", "key"])
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    encoder = Encoder()
    library = Library.load(DATA / "index", encoder)
    queries = {row["_id"]: row for _, row in read_jsonl(DATA / "queries.jsonl")}
    answers = {row["query_id"]: row for _, row in read_jsonl(DATA / "answers.jsonl")}
    asked: dict[str, list[str]] = {"train": [], "test": []}
    for key in answers:
        asked[queries[key]["metadata"]["split"]].append(key)
    questions = [
        Asked(queries[key]["text"], answers[key][arguments.answers], queries[key]["metadata"]["topic"])
        for key in asked["train"]
    ]
    test = {key: queries[key]["text"] for key in asked["test"]}
    qrels = {key: grades for key, grades in load_qrels(DATA / "qrels.tsv").items() if key in test}

    started = time.perf_counter()
    generator = Generator(arguments.generator, encoder, device="cpu")
    candidates = Candidates.of(encoder, library, generator, questions, k=arguments.k)
    print(f"{len(questions)} questions over {arguments.k} passages: {time.perf_counter() - started:.0f} s")
    for formula in FORMULAS:
        started = time.perf_counter()
        trained, report = train_query_encoder(encoder, candidates, formula=formula)
        print(f"\n{report}\n{time.perf_counter() - started:.0f} s")
        if report.kept_base:
            continue
        print(f"{len(test)} questions on test topics, by the query vector")
        print(compare_queries(library, encoder, trained, test, qrels, MEASURES))
        found = []
        for one in (encoder, trained):
            run = {
                key: hybrid_search(library, text, one.encode_query(text), 100) for key, text in test.items()
            }
            found.append(evaluate(run, qrels, MEASURES))
        print("by meaning and words")
        for name in MEASURES:
            before, after = (one[name] for one in found)
            print(f"{name:14} {before.mean:5.3f}  {after.mean:5.3f}  {paired_interval(before, after)}")


if __name__ == "__main__":
    main()
