"""Write notebooks/glossary.md: what the corpus says that its terms are.

    python data/build/glossary.py

An entry is a sentence that begins as a definition does, in a passage that gives the intuition, and answers a
question of the kind "what"; the notebook named is the first whose text has the term.
"""

import json
import re

from ragkit.generation.definitions import defined_terms
from ragkit.retrieval.corpus import DATA, load_passages, read_jsonl

NOTEBOOKS = DATA.parent / "notebooks"
FILE = NOTEBOOKS / "glossary.md"
HEAD = """# Glossary

The terms of this course, each in one sentence of the corpus that the notebooks search. It is made by
`python data/build/glossary.py`; to change an entry, change the passage. In italics: the title of the passage,
to ask for with `python -m ragkit ask`, and the first notebook that uses the term.
"""
MOST_WORDS = 4  # of a term: a longer one describes something, it doesn't name it
_NO_TERM = re.compile(r"\b(?:it|its|that|this(?! project)|these|nor|if|what|how|not)\b", re.I)


def entries() -> list[dict]:
    """One a term, in alphabetical order: names (first the one to look up), sentence, title, notebook."""
    passages = {passage.id: passage for passage in load_passages(DATA)}
    kinds = {row["_id"]: row["metadata"]["kind"] for _, row in read_jsonl(DATA / "queries.jsonl")}
    found: dict[str, dict] = {}
    for _, answer in read_jsonl(DATA / "answers.jsonl"):
        names, passage = defined_terms(answer["support"]), passages[answer["passage_id"]]
        wanted = kinds[answer["query_id"]] == "what" and passage.metadata["style"] == "intuition"
        if not wanted or not names or _NO_TERM.search(names[0]):
            continue
        names.sort(key=lambda name: not re.search(r"[A-Z].*[A-Z]", name))  # people look up RAG
        if max(len(name.split()) for name in names) <= MOST_WORDS:
            entry = {"names": names, "sentence": answer["support"], "title": passage.title}
            entry["notebook"] = first_use(names)
            found.setdefault(names[0].casefold(), entry)
    return [found[key] for key in sorted(found)]


def first_use(names: list[str]) -> str | None:
    """The first notebook, in the course's order, that has one of the names in its text."""
    words = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, names))})s?(?![\w-])", re.I)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        if any(words.search("".join(cell["source"])) for cell in cells if cell["cell_type"] == "markdown"):
            return path.name
    return None


def escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<|])", r"\\\1", text)


def text(rows: list[dict]) -> str:
    """The whole file."""
    parts = [HEAD]
    for row in rows:
        first, *others = row["names"]
        also = f" ({', '.join(others)})" if others else ""
        used = f"; first in [{row['notebook'][:-6]}]({row['notebook']})" if row["notebook"] else ""
        head = first[0].upper() + first[1:] if first.islower() else first
        said = f"{escaped(also)}: {escaped(row['sentence'])} *{escaped(row['title'])}{used}*"
        parts.append(f"**{escaped(head)}**{said}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    FILE.write_text(text(entries()), encoding="utf-8")
