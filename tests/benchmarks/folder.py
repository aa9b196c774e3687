"""A folder of Markdown read, split and encoded, and questions answered from it, beside LangChain."""

import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from tests.benchmarks.encoding import encoder
from tests.benchmarks.sides import against, beside, timed
from tests.benchmarks.table import Row, ratio, spoken

PEER = "LangChain"


def embeddings(folder: str, threads: int, known=()):
    """LangChain's interface to an encoder, as its own is; `known`: vectors by text."""
    from langchain_core.embeddings import Embeddings as Base

    encode = encoder("sentence-transformers", folder, threads)

    class Embeddings(Base):
        def embed_documents(self, texts):
            return [known[t] for t in texts] if known else encode(texts).tolist()

        def embed_query(self, text):
            return encode([text])[0].tolist()

    return Embeddings()


def index_side(name: str, folder: str, threads: int):
    """Reads, splits, encodes and keeps a folder; then answers with the files of the nearest pieces."""
    if name == "ragkit":
        from ragkit import Encoder, Library, load_passages
        from ragkit.retrieval.lexical import hybrid_search

        ours = Encoder(memory=0)
        ours.encode("both have their weights in place")

        def index(documents):
            library = Library.build(load_passages(documents), ours, progress=False)

            def search(query):
                hits = hybrid_search(library, query, ours.encode_query(query), 10)
                return [hit.passage.id.partition("#")[0] for hit in hits]

            return len(library), search
    else:
        from langchain_core.documents import Document
        from langchain_core.vectorstores import InMemoryVectorStore
        from langchain_text_splitters import MarkdownTextSplitter
        from transformers import AutoTokenizer

        own = embeddings(folder, threads)
        own.embed_query("both have their weights in place")
        # In the encoder's tokens, two of them its own: as it comes, it makes pieces of 4,000 characters, of
        # which the encoder reads a quarter.
        splitter = MarkdownTextSplitter.from_huggingface_tokenizer(
            AutoTokenizer.from_pretrained(folder), chunk_size=254, chunk_overlap=32
        )

        def index(documents):
            paths = sorted(Path(documents).rglob("*.md"))
            loaded = [Document(p.read_text(encoding="utf-8"), metadata={"source": p.name}) for p in paths]
            pieces = splitter.split_documents(loaded)
            store = InMemoryVectorStore(own)
            store.add_documents(pieces)
            return len(pieces), lambda query: [
                d.metadata["source"] for d in store.similarity_search(query, 10)
            ]

    def work(documents, queries=()):
        (pieces, search), seconds = timed(lambda: index(documents))
        return {"seconds": seconds, "pieces": pieces, "found": [search(query) for query in queries]}

    return work


def index(threads: int, copies: int, questions: int) -> list[Row]:
    """The corpus as a folder of Markdown, a file a passage, and `copies` with other orders of sentences, one
    after another, in turns; then ragkit with all of them in one folder. Questions are answered over the plain
    one."""
    from ragkit.evaluation.measures import evaluate, load_qrels, load_queries
    from ragkit.retrieval.corpus import DATA, load_passages
    from ragkit.retrieval.default_encoder import default_folder
    from ragkit.retrieval.text import split_sentences

    passages = load_passages(DATA / "corpus.jsonl")
    qrels, texts = load_qrels(DATA / "qrels.tsv"), load_queries(DATA / "queries.jsonl")
    ids = [one for one in qrels if max(qrels[one].values()) > 0]
    ids = ids[:: max(1, len(ids) // questions)][:questions]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        for copy in range(1 + copies):
            folder = Path(place, str(copy))
            folder.mkdir()
            for one in passages:
                text = " ".join(rng.permutation(split_sentences(one.text))) if copy else one.text
                (folder / f"{one.id}.md").write_text(f"# {one.title}\n\n{text}\n", encoding="utf-8")
        asks = [{"documents": str(Path(place, str(copy)))} for copy in range(1 + copies)]
        asks[0]["queries"] = [texts[one] for one in ids]
        setup = {"folder": str(default_folder()), "threads": threads}
        found, _ = beside("index", ["ragkit", PEER], asks, **setup)
        together, _ = beside("index", ["ragkit"], [{"documents": place}] if copies else asks, **setup)

    def quality(answer) -> str:
        run = {}
        for one, names in zip(ids, answer["found"]):
            files = [Path(name).stem for name in names]
            run[one] = {file: -float(files.index(file)) for file in files}  # by its first piece
        values = evaluate(run, {one: qrels[one] for one in ids}, ["nDCG@10"])["nDCG@10"]
        return f"nDCG@10 {values.mean:.3f}"

    ours, (all_of,) = found["ragkit"], together["ragkit"]
    taken = spoken(sum(a["seconds"] for a in ours))
    one, size = median(a["seconds"] for a in ours), ours[0]["pieces"]
    grows = f"{size:,}: {spoken(one)} → {all_of['pieces']:,}: {spoken(all_of['seconds'])}"
    whole = f", {len(ours)} times: {all_of['pieces']:,} in all" if copies else ""
    work = f"index a folder of Markdown, {size:,} pieces{whole}"
    answers = f"and answer {len(ids)} questions of the corpus"
    if PEER not in found:
        return [Row(work, taken, PEER, grows=grows), Row(answers, quality(ours[0]), PEER)]
    theirs = found[PEER]
    factor = ratio(*against(theirs, ours))
    pieces = sum(a["pieces"] for a in theirs)
    said = f"{spoken(sum(a['seconds'] for a in theirs))}, {pieces:,} pieces"
    compared = f"{factor:.2f} × as fast", "≥ 1.5 ×", factor >= 1.5
    return [
        Row(work, taken, PEER, said, *compared, grows),
        Row(answers, quality(ours[0]), PEER, quality(theirs[0])),
    ]
