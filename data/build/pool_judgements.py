"""Pool candidates for judging: the first passages of dense retrieval and of BM25, in random order.

    python data/build/pool_judgements.py --out FOLDER

writes passages.txt (all passages, to be read once) and one FAMILY.tsv a family: query id, question, ids of
the candidates. A judge writes judgements/FAMILY.tsv: query id, passage id, grade (2 answers, 1 helps, 0 no).
"""

import argparse
import json
import random
from pathlib import Path

from ragkit.retrieval.corpus import load_passages, read_jsonl
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.library import Library, lexical_search, retrieve

DATA = Path(__file__).parent.parent
DEPTH = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    encoder = Encoder()
    library = Library.build(load_passages(DATA), encoder)
    passages = [f"## {p.id}\n{p.title}\n{p.text}\n" for p in library.passages]
    (out / "passages.txt").write_text("\n".join(passages), encoding="utf-8")
    queries = [row for _, row in read_jsonl(DATA / "queries.jsonl")]
    vectors = encoder.encode([encoder.query_prefix + query["text"] for query in queries])
    rows: dict[str, list[str]] = {}
    rng = random.Random(0)
    for query, vector in zip(queries, vectors):
        hits = retrieve(library, vector, DEPTH) + lexical_search(library, query["text"], DEPTH)
        candidates = sorted({hit.passage.id for hit in hits})
        rng.shuffle(candidates)  # a judge must not see what ranked first
        row = [query["_id"], json.dumps(query["text"], ensure_ascii=False), " ".join(candidates)]
        rows.setdefault(query["metadata"]["family"], []).append("\t".join(row))
    for family, lines in rows.items():
        (out / f"{family}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{family}: {len(lines)} questions")


if __name__ == "__main__":
    main()
