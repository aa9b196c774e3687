"""Make data/corpus.jsonl, queries.jsonl, answers.jsonl, qrels.tsv and index/ from topics/ and judgements/.

    python data/build/build_corpus.py            # check everything, then write
    python data/build/build_corpus.py --check topics/rag.toml   # check one file, write nothing

The TOML files are the source: people edit those. Checks here are about form (counts, verbatim support,
sentences, code that runs); whether a formula is right is checked in tests/facts/.
"""

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np

from ragkit.retrieval.corpus import load_passages
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.library import Library
from ragkit.retrieval.text import split_sentences

HERE = Path(__file__).parent
DATA = HERE.parent
STYLES = ("intuition", "mathematics", "practice")
KINDS = ("what", "why", "how", "compare", "when", "which")
WORDS = (50, 170)
REFERENCE = re.compile(r"“([^”]*)”")  # curly quotes are for the titles of other passages
FENCE = re.compile(r"```python\n(.*?)```", re.S)


def read_family(path: Path) -> dict:
    """One TOML file, with its name added to any error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SystemExit(f"{path}: {error}") from error


def check_passage(topic: dict, passage: dict) -> list[str]:
    """What is wrong with one passage; an empty list if nothing is."""
    where, wrong = f"{topic['id']}-{passage['style']}", []
    count = len(passage["text"].split())
    if not WORDS[0] <= count <= WORDS[1]:
        wrong.append(f"{where}: {count} words, not {WORDS[0]} to {WORDS[1]}")
    if not passage.get("sources"):
        wrong.append(f"{where}: no sources")
    for source in passage.get("sources", []):
        if not isinstance(source.get("year"), int) or not (source.get("arxiv") or source.get("title")):
            wrong.append(f"{where}: a source needs a year and an arxiv id or a title: {source}")
        if "arxiv" in source and not re.fullmatch(r"\d{4}\.\d{4,5}|[a-z-]+/\d{7}", source["arxiv"]):
            wrong.append(f"{where}: not an arXiv id: {source['arxiv']}")
    if re.search(r"\$|\\[a-z]+|https?://", passage["text"]):
        wrong.append(f"{where}: write formulas in plain Unicode (no LaTeX, no addresses)")
    if re.search(r"\S\n- ", FENCE.sub("", passage["text"])):
        wrong.append(f"{where}: an empty line before each item of a list, or they run together")
    for code in FENCE.findall(passage["text"]):
        try:
            exec(compile(code, where, "exec"), {"__name__": "passage"})
        except Exception as error:  # any failure of the passage's own code is a finding
            wrong.append(f"{where}: its code fails: {type(error).__name__}: {error}")
    return wrong


def check_query(topic: dict, query: dict, number: int) -> list[str]:
    """What is wrong with one answerable query."""
    where, wrong = f"{topic['id']} query {number}", []
    texts = {p["style"]: p["text"] for p in topic["passage"]}
    if query.get("kind") not in KINDS:
        wrong.append(f"{where}: kind is one of {KINDS}, not {query.get('kind')!r}")
    if query.get("level", "beginner") != "beginner":
        wrong.append(f"{where}: level is beginner, or left out, not {query['level']!r}")
    if query.get("passage") not in texts:
        return wrong + [f"{where}: passage is one of {tuple(texts)}, not {query.get('passage')!r}"]
    if query["support"] not in split_sentences(texts[query["passage"]]):
        wrong.append(f"{where}: support is not one whole sentence of that passage: {query['support']!r}")
    if query["key"] not in query["support"]:
        wrong.append(f"{where}: key is not in support: {query['key']!r}")
    if len(query["key"].split()) > 12:
        wrong.append(f"{where}: key is longer than 12 words: {query['key']!r}")
    if not query.get("answer"):
        wrong.append(f"{where}: no answer")
    return wrong


def check_family(family: dict) -> list[str]:
    """Everything that is wrong with one file."""
    wrong = []
    for topic in family["topic"]:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", topic["id"]):
            wrong.append(f"topic id {topic['id']!r}: small letters, digits and hyphens")
        if topic["split"] not in ("train", "test"):
            wrong.append(f"{topic['id']}: split is train or test")
        if tuple(p["style"] for p in topic["passage"]) != STYLES:
            wrong.append(f"{topic['id']}: passages are {STYLES}, in this order")
        for passage in topic["passage"]:
            wrong += check_passage(topic, passage)
        for number, query in enumerate(topic.get("query", []), 1):
            wrong += check_query(topic, query, number)
    texts = [q["text"] for t in family["topic"] for k in ("query", "near_miss") for q in t.get(k, [])]
    texts += [q["text"] for q in family.get("off_topic", [])]
    wrong += [f"twice: {text!r}" for text in sorted({t for t in texts if texts.count(t) > 1})]
    return wrong


def check_references(families: list[dict]) -> list[str]:
    """Titles that a passage refers to and no passage has, and titles that two passages share."""
    passages = [(f"{t['id']}-{p['style']}", p) for f in families for t in f["topic"] for p in t["passage"]]
    titles = [passage["title"] for _, passage in passages]
    wrong = [
        f"two passages are called {title!r}" for title in sorted({t for t in titles if titles.count(t) > 1})
    ]
    for where, passage in passages:
        named = REFERENCE.findall(" ".join(passage["text"].split()))
        wrong += [f"{where}: no passage is called {title!r}" for title in named if title not in titles]
    return wrong


def flow(text: str) -> str:
    """The text with one space for each line break outside code: in the TOML a sentence has a line."""
    parts = re.split(r"(```.*?```)", text.strip(), flags=re.S)
    paragraphs = ("\n\n".join(" ".join(p.split()) for p in part.split("\n\n")) for part in parts[::2])
    flowed = [part.strip() for pair in zip(paragraphs, [*parts[1::2], ""]) for part in pair]
    return "\n\n".join(part for part in flowed if part)


def assemble(families: list[dict]) -> tuple[list[dict], list[dict], list[dict]]:
    """(corpus, queries, answers): the rows of the three JSONL files, in BEIR form."""
    corpus, queries, answers = [], [], []

    def add_query(query_id: str, query: dict, **metadata) -> None:
        queries.append({"_id": query_id, "text": query["text"], "metadata": metadata})

    for family in families:
        for topic in family["topic"]:
            about = {"family": family["family"], "topic": topic["id"], "split": topic["split"]}
            for p in topic["passage"]:
                metadata = about | {"style": p["style"], "sources": p["sources"]}
                text = flow(p["text"])
                corpus.append(
                    {
                        "_id": f"{topic['id']}-{p['style']}",
                        "title": p["title"],
                        "text": text,
                        "metadata": metadata,
                    }
                )
            for number, query in enumerate(topic["query"], 1):
                query_id = f"{topic['id']}-q{number}"
                level = {"level": query["level"]} if "level" in query else {}
                add_query(query_id, query, **about, kind=query["kind"], **level, answerable=True)
                passage = f"{topic['id']}-{query['passage']}"
                kept = {key: query[key] for key in ("answer", "support", "key")}
                answers.append({"query_id": query_id, "passage_id": passage} | kept)
            for number, query in enumerate(topic["near_miss"], 1):
                add_query(f"{topic['id']}-n{number}", query, **about, kind="near miss", answerable=False)
        # Off-topic questions have no topic; every third is for testing, as about every third topic is.
        for number, query in enumerate(family["off_topic"], 1):
            about = {"family": family["family"], "split": "test" if number % 3 == 0 else "train"}
            add_query(f"{family['family']}-off{number}", query, **about, kind="off topic", answerable=False)
    return corpus, queries, answers


def read_judgements(
    corpus: list[dict], queries: list[dict], answers: list[dict]
) -> dict[tuple[str, str], int]:
    """Grades by (query, passage): judgements/*.tsv, and 2 for every passage with a supporting sentence."""
    grades: dict[tuple[str, str], int] = {}
    known = {row["_id"] for row in corpus}, {row["_id"] for row in queries}
    for path in sorted((HERE / "judgements").glob("*.tsv")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            query, passage, grade = line.split("\t")
            if passage not in known[0] or query not in known[1] or grade not in ("0", "1", "2"):
                raise SystemExit(
                    f"{path}, line {number}: unknown query or passage, or a grade not 0 to 2: {line!r}"
                )
            grades[query, passage] = int(grade)
    for answer in answers:
        grades[answer["query_id"], answer["passage_id"]] = 2
    unanswerable = {row["_id"] for row in queries if not row["metadata"]["answerable"]}
    answered = sorted(key for key, grade in grades.items() if grade == 2 and key[0] in unanswerable)
    if answered:
        raise SystemExit(f"questions said to be unanswerable have an answering passage: {answered}")
    return grades


def check_vectors(library) -> list[str]:
    """Passages cut by the encoder, and pairs too much alike (cosine above 0.95)."""
    vectors = library._index.index.reconstruct_n(0, len(library))
    cosines = np.triu(vectors @ vectors.T, 1)
    ids = [passage.id for passage in library.passages]
    print(f"largest cosine of two passages: {cosines.max():.3f}", file=sys.stderr)
    return [f"{ids[i]} and {ids[j]}: cosine {cosines[i, j]:.3f}" for i, j in np.argwhere(cosines > 0.95)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", nargs="*", type=Path, help="check these files only, write nothing")
    arguments = parser.parse_args()
    paths = arguments.check or sorted((HERE / "topics").glob("*.toml"))
    families = [read_family(path) for path in paths]
    wrong = [f"{path.name}: {line}" for path, family in zip(paths, families) for line in check_family(family)]
    topics = [topic for family in families for topic in family["topic"]]
    count = {kind: sum(len(t.get(kind, [])) for t in topics) for kind in ("passage", "query", "near_miss")}
    off_topic = sum(len(f.get("off_topic", [])) for f in families)
    print(f"{len(topics)} topics, {count}, {off_topic} off-topic questions", file=sys.stderr)
    if not arguments.check:  # a passage may refer to one of another file
        wrong += check_references(families)
    if wrong:
        raise SystemExit("\n".join(wrong))
    if arguments.check:
        return
    corpus, queries, answers = assemble(families)
    grades = read_judgements(corpus, queries, answers)
    for name, rows in (("corpus", corpus), ("queries", queries), ("answers", answers)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (DATA / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    lines = [f"{query}\t{passage}\t{grade}\n" for (query, passage), grade in sorted(grades.items())]
    (DATA / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")
    encoder = Encoder()
    library = Library.build(load_passages(DATA), encoder)
    wrong = check_vectors(library)
    if encoder.truncated:
        limit = encoder.max_tokens
        for passage in library.passages:
            length = len(encoder.tokenizer(passage.full_text, truncation=False, verbose=False).input_ids)
            wrong += [f"{passage.id}: {length} tokens, the encoder reads {limit}"] if length > limit else []
    if wrong:
        raise SystemExit("\n".join(wrong))
    library.save(DATA / "index")


if __name__ == "__main__":
    main()
