"""Pool what has to be judged: a question's topic, and what any search brings into its first five.

    python data/build/pool_judgements.py --out FOLDER [--changed FILE]

writes passages.txt (all passages, to be read once) and one FAMILY.tsv a family: query id, question, ids of
the candidates that are not in judgements/ yet. A judge adds to judgements/FAMILY.tsv: query id, passage id,
grade (2 answers, 1 helps, 0 no). FILE has the ids of passages whose judgements are to be made again.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from ragkit.retrieval.corpus import load_passages, read_jsonl
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.lexical import hybrid_search, lexical_search
from ragkit.retrieval.library import Library
from ragkit.retrieval.search import retrieve

DATA = Path(__file__).parent.parent
DEPTH = 5


def pools(library: Library, queries: list[dict], encoder: Encoder) -> Iterator[tuple[dict, set[str]]]:
    """Each question with the ids of the passages that should be judged for it."""
    topics: dict[str, set[str]] = {}
    for passage in library.passages:
        topics.setdefault(passage.metadata["topic"], set()).add(passage.id)
    vectors = encoder.encode([encoder.query_prefix + query["text"] for query in queries])
    for query, vector in zip(queries, vectors):
        runs = (
            retrieve(library, vector, DEPTH),
            lexical_search(library, query["text"], DEPTH),
            hybrid_search(library, query["text"], vector, DEPTH),
        )
        found = {hit.passage.id for run in runs for hit in run}
        yield query, found | topics.get(query["metadata"].get("topic", ""), set())


def judged() -> set[tuple[str, str]]:
    files = (Path(__file__).parent / "judgements").glob("*.tsv")
    lines = (line for file in files for line in file.read_text(encoding="utf-8").splitlines())
    return {(query, passage) for query, passage, _ in (line.split("\t") for line in lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--changed", type=Path)
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    changed = set(arguments.changed.read_text(encoding="utf-8").split()) if arguments.changed else set()
    before = judged()
    encoder = Encoder()
    library = Library.build(load_passages(DATA), encoder)
    passages = [f"## {p.id}\n{p.title}\n{p.text}\n" for p in library.passages]
    (out / "passages.txt").write_text("\n".join(passages), encoding="utf-8")
    rows: dict[str, list[str]] = {}
    rng, pairs = random.Random(0), 0
    for query, candidates in pools(library, [row for _, row in read_jsonl(DATA / "queries.jsonl")], encoder):
        again = {passage for passage in changed if (query["_id"], passage) in before}
        new = {passage for passage in candidates if (query["_id"], passage) not in before}
        if not (to_judge := sorted(new | again)):
            continue
        rng.shuffle(to_judge)  # a judge must not see what ranked first
        row = [query["_id"], json.dumps(query["text"], ensure_ascii=False), " ".join(to_judge)]
        rows.setdefault(query["metadata"]["family"], []).append("\t".join(row))
        pairs += len(to_judge)
    for family, lines in rows.items():
        (out / f"{family}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{family}: {len(lines)} questions")
    print(f"{pairs} pairs")


if __name__ == "__main__":
    main()
