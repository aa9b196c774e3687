"""Questions over hits, to measure or to calibrate a model that reads: nothing here was trained on.

"test" is for reports, "dev" for choosing settings; each in the kinds "answerable", "near miss" (its subject
is there, its answer is not) and "off topic".
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

from reader_data import is_dev
from tiny_lm_data import read_squad, topics_of

from ragkit.evaluation.measures import load_qrels
from ragkit.retrieval.corpus import DATA, Hit, Passage, read_jsonl
from ragkit.retrieval.lexical import hybrid_search
from ragkit.retrieval.library import Library


@dataclass
class Case:
    """A question over its hits. `support`: the sentence that answers; `golds`: what an answer must hold;
    `judged`: ids of the passages that were judged to answer, where they were judged."""

    query: str
    hits: list[Hit]
    support: str = ""
    golds: list[str] = field(default_factory=list)
    judged: set[str] = field(default_factory=set)


def squad_cases(folder: Path, part: str, limit: int | None = None, seed: int = 0) -> dict[str, list[Case]]:
    """Questions in SQuAD format, each over its paragraph and two others; the same without the answering
    sentence; and over three paragraphs of other articles. At most `limit` questions, drawn by `seed`."""
    rng = random.Random(seed)
    paragraphs = read_squad(folder, held_out=part == "test")
    homes = [home for home in range(len(paragraphs)) if part == "test" or is_dev(home)]
    rows = [(home, *question) for home in homes for question in paragraphs[home].questions]
    rows = rng.sample(rows, min(limit or len(rows), len(rows)))
    cases: dict[str, list[Case]] = {"answerable": [], "near miss": [], "off topic": []}
    for home, text, right, spans in rows:
        others = rng.sample([i for i in range(len(paragraphs)) if i != home], 2)
        support = paragraphs[home].sentences[right]
        golds = [support[a:b] for a, b in spans]
        texts = [paragraphs[i].text for i in (home, *others)]
        cases["answerable"].append(Case(text, _hits(texts), support, golds))
        left = " ".join(s for s in paragraphs[home].sentences if s != support)
        if not any(gold in t for gold in golds for t in (left, *texts[1:])):
            cases["near miss"].append(Case(text, _hits([left, *texts[1:]])))
        foreign = [p.text for p in paragraphs if p.article != paragraphs[home].article]
        cases["off topic"].append(Case(text, _hits(rng.sample(foreign, 3))))
    return cases


def _hits(texts: list[str]) -> list[Hit]:
    return [Hit(Passage(str(n), text), 0.0, n) for n, text in enumerate(texts, 1)]


def corpus_cases(encoder, part: str, limit: int | None = None, k: int = 3) -> dict[str, list[Case]]:
    """This repo's questions over what `ragkit ask` retrieves for them: on test topics, or on training topics
    that were kept back. At most `limit` questions of each kind."""
    library = Library.load(DATA / "index", encoder)
    answers = {row["query_id"]: row for _, row in read_jsonl(DATA / "answers.jsonl")}
    qrels = load_qrels(DATA / "qrels.tsv")
    queries = [row for _, row in read_jsonl(DATA / "queries.jsonl")]
    if part == "test":
        queries = [row for row in queries if row["metadata"]["split"] == "test"]
    else:
        topics = topics_of(queries, "dev")
        queries = [row for row in queries if row["metadata"].get("topic") in topics]
    cases: dict[str, list[Case]] = {"answerable": [], "near miss": [], "off topic": []}
    for row in queries:
        answer, kind = answers.get(row["_id"]), row["metadata"]["kind"]
        kind = "answerable" if answer else kind
        if len(cases[kind]) == limit:
            continue
        hits = hybrid_search(library, row["text"], encoder.encode_query(row["text"]), k)
        case = Case(row["text"], hits)
        if answer:
            case.support, case.golds = answer["support"], [answer["key"]]
            case.judged = {passage for passage, grade in qrels[row["_id"]].items() if grade == 2}
        cases[kind].append(case)
    return cases
