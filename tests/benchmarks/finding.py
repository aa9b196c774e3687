"""From a question to hits, over passages whose vectors are there."""

import json
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from tests.benchmarks.encoding import encoder, mixed_passages, transformers_model
from tests.benchmarks.folder import embeddings
from tests.benchmarks.sides import beside, timed
from tests.benchmarks.table import Row, ratio, spoken

FLOOR = "forward + FAISS"
STORED = "ragkit, reranked, sentences stored"


def find_side(name: str, folder: str, threads: int, texts: str, vectors: str, k: int):
    """`texts`: a JSON file of N texts, `vectors`: (N, D) in a .npy file; what is asked is encoded."""
    texts, vectors = json.loads(Path(texts).read_text(encoding="utf-8")), np.load(vectors)
    find = FINDERS[name](folder, threads, texts, vectors, k)
    find("a question to begin with")

    def work(query):
        if name == "ragkit, once more":
            find(query)
        found, seconds = timed(lambda: find(query))
        return {"seconds": seconds, "found": found}

    return work


def _ours(folder, threads, texts, vectors, k):
    from ragkit import Encoder, Library, Passage
    from ragkit.retrieval.search import retrieve

    ours = Encoder()
    ours.remember(texts, vectors)
    passages = [Passage(f"p{n}", text) for n, text in enumerate(texts)]
    library = Library.build(passages, ours, progress=False)
    return lambda query: [hit.passage.id for hit in retrieve(library, ours.encode_query(query), k)]


class Drawn:
    """An encoder whose passages have the vectors given, and their sentences some that are drawn."""

    def __init__(self, like, vectors):
        self.name, self.fingerprint, self.dimension = like.name, like.fingerprint, like.dimension
        self.vectors, self.rng = vectors, np.random.default_rng(1)

    def encode_passages(self, texts, **_):
        drawn = self.rng.normal(size=(len(texts), self.dimension)).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    def encode_sentences(self, texts, spans, **_):
        both = zip(self.vectors, spans, strict=True)
        return [(vector[None], self.encode_passages(own)) for vector, own in both]


def _ours_with_words(folder, threads, texts, vectors, k, rerank=False, sentences=False):
    from ragkit import Assistant, Encoder, Library, Passage, Reranker
    from ragkit.reranking.linear import one_thread
    from tests.simulated_rankings import simulated

    ours = Encoder()
    ours.remember(texts, vectors)
    passages = [Passage(f"p{n}", text) for n, text in enumerate(texts)]
    makes = Drawn(ours, vectors) if sentences else ours
    library = Library.build(passages, makes, sentences=sentences, progress=False)
    assistant = Assistant(ours, library, None)
    if rerank:
        assistant.reranker = Reranker(ours)
        with one_thread():
            assistant.reranker.fit(simulated(20), progress=False)
    return lambda query: [hit.passage.id for hit in assistant.find(query, k)]


def _floor(folder, threads, texts, vectors, k):
    """What it cannot do without: the model's forward pass, and FAISS."""
    import faiss
    import torch

    model, tokenizer, _ = transformers_model(folder)
    model.model.set_attn_implementation("sdpa")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def find(query):
        rows = tokenizer([query], return_tensors="pt")
        with torch.inference_mode():
            states = model(rows["input_ids"], rows["attention_mask"])
            vector = torch.nn.functional.normalize(states.mean(1), dim=-1).numpy()
        return [f"p{n}" for n in index.search(vector, k)[1][0]]

    return find


def _haystack(folder, threads, texts, vectors, k):
    from haystack import Document, Pipeline, component
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    encode = encoder("sentence-transformers", folder, threads)

    @component
    class Embedder:
        @component.output_types(embedding=list[float])
        def run(self, text: str):
            return {"embedding": encode([text])[0].tolist()}

    store = InMemoryDocumentStore(embedding_similarity_function="dot_product")
    rows = zip(texts, vectors.tolist())
    store.write_documents([Document(id=f"p{n}", content=t, embedding=v) for n, (t, v) in enumerate(rows)])
    pipeline = Pipeline()
    pipeline.add_component("embedder", Embedder())
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=k))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    return lambda query: [
        one.id for one in pipeline.run({"embedder": {"text": query}})["retriever"]["documents"]
    ]


def _langchain(folder, threads, texts, vectors, k):
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore(embeddings(folder, threads, dict(zip(texts, vectors.tolist()))))
    store.add_texts(texts, ids=[f"p{n}" for n in range(len(texts))])
    return lambda query: [one.id for one in store.similarity_search(query, k=k)]


def _txtai(folder, threads, texts, vectors, k):
    from txtai import Embeddings

    encode, known = encoder("sentence-transformers", folder, threads), dict(zip(texts, vectors))

    def transform(asked):
        if all(text in known for text in asked):
            return np.array([known[text] for text in asked])
        return encode(list(asked))

    index = Embeddings({"method": "external", "transform": transform, "backend": "faiss"})
    index.index([(f"p{n}", text, None) for n, text in enumerate(texts)])
    return lambda query: [key for key, _ in index.search(query, k)]


FINDERS = {
    "ragkit": _ours,
    "ragkit, words too": _ours_with_words,
    "ragkit, reranked": lambda *setup: _ours_with_words(*setup, rerank=True),
    STORED: lambda *setup: _ours_with_words(*setup, rerank=True, sentences=True),
    "ragkit, once more": lambda *setup: _ours_with_words(*setup, rerank=True),
    "forward + FAISS": _floor,
    "haystack": _haystack,
    "LangChain": _langchain,
    "txtai": _txtai,
}


def find(threads: int, sizes: tuple[int, int], queries: int) -> list[Row]:
    """Ten hits to a question that was not asked before, one after another. Passages' vectors are drawn at
    random: nothing depends on them but which ones are found."""
    from ragkit.retrieval.corpus import DATA, read_jsonl
    from ragkit.retrieval.default_encoder import default_folder

    asked = [row["text"] for _, row in read_jsonl(DATA / "queries.jsonl")][:queries]
    own = ["ragkit", "ragkit, words too", "ragkit, reranked", STORED, "ragkit, once more"]
    names = [*own, FLOOR, "haystack", "LangChain", "txtai"]
    took = {}
    with tempfile.TemporaryDirectory() as place:
        for size in sizes:
            rng = np.random.default_rng(0)
            vectors = rng.normal(size=(size, 384)).astype(np.float32)
            np.save(f"{place}/v.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
            texts = [f"{text} {n}" for n, text in enumerate(mixed_passages(size))]
            Path(f"{place}/texts.json").write_text(json.dumps(texts), encoding="utf-8")
            setup = {"texts": f"{place}/texts.json", "vectors": f"{place}/v.npy", "k": 10, "threads": threads}
            which = own if size != sizes[-1] else names
            asks = [{"query": query} for query in asked]
            took[size], _ = beside("find", which, asks, folder=str(default_folder()), **setup)
    times = {
        size: {name: [a["seconds"] for a in answers] for name, answers in sides.items()}
        for size, sides in took.items()
    }

    def said(taken):
        return "{} / {}".format(*map(spoken, np.percentile(taken, [50, 95])))

    rows, last = [], times[sizes[-1]]
    titles = {
        "ragkit": "encode, search",
        "ragkit, words too": "and BM25 (`find`)",
        "ragkit, reranked": "and a reranker that reads each hit for the first time",
        STORED: "the same, of a library that stores sentences",
        "ragkit, once more": "the same, asked once more",
    }
    for name in own:
        grows = " → ".join(f"{size:,}: {spoken(median(times[size][name]))}" for size in sizes)
        factor = ratio(last[name], last[FLOOR])
        work = f"question → hits, {sizes[-1]:,} passages: {titles[name]}; median / 95th percentile"
        figures = said(last[name]), FLOOR, said(last[FLOOR]), f"{factor:.2f} × its time"
        rows.append(Row(work, *figures, "≤ 1.1 ×", factor <= 1.1, grows))
    for peer in names[len(own) + 1 :]:
        if peer not in last:
            rows.append(Row("encode, search", "", peer))
            continue
        factor = ratio(last["ragkit"], last[peer])
        both = zip(took[sizes[-1]]["ragkit"], took[sizes[-1]][peer])
        same = np.mean([ours["found"] == theirs["found"] for ours, theirs in both])
        work = f"encode, search: the same ten for {same:.0%} of the questions"
        figures = said(last["ragkit"]), peer, said(last[peer]), f"{factor:.2f} × its time"
        rows.append(Row(work, *figures, "≤ 1 ×", factor <= 1))
        ahead = ratio(last[STORED], last[peer])
        work = "encode, search, BM25, rerank by stored sentences, beside a peer that encodes and searches"
        figures = said(last[STORED]), peer, said(last[peer]), f"{ahead:.2f} × its time"
        rows.append(Row(work, *figures, "≤ 1 ×", ahead <= 1))
    return rows
