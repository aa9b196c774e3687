"""Encoding, beside sentence-transformers, OpenVINO and ONNX Runtime with the same weights."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks.sides import TORCH, against, beside, timed
from tests.benchmarks.table import Row, ratio, spoken

WORDS = "a small reranker learns from clicks which document people want and β holds it near the first order ."
BATCH = 32  # sentence-transformers' own


def mixed_passages(number: int, seed: int = 0) -> list[str]:
    """Passages of 5 to 230 words, cut from the corpus that ships, or from made-up text without one."""
    from ragkit.retrieval.corpus import DATA, read_jsonl  # not in a peer's process

    corpus = DATA / "corpus.jsonl"
    rows = [row["text"] for _, row in read_jsonl(corpus)] if corpus.exists() else [WORDS] * 50
    words = " ".join(rows).split()
    random = np.random.default_rng(seed)
    lengths = random.integers(5, 231, number)
    starts = [random.integers(0, max(1, len(words) - length)) for length in lengths]
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths)]


def encoder(name: str, folder: str, threads: int):
    """A function (texts) → (N, D) of that tool, for one model."""
    if name.startswith("ragkit"):
        from ragkit import Encoder

        dtype = name.partition(", ")[2] or "float32"
        ours = Encoder(memory=0, dtype=dtype)
        return lambda texts: ours.encode(texts, progress=False, warn=False)
    if name == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        theirs = SentenceTransformer(folder, device="cpu")
        return lambda texts: theirs.encode(texts, show_progress_bar=False)
    forward, tokenizer = _openvino(name, folder, threads) if "OpenVINO" in name else _onnx(folder, threads)

    def encode(texts):
        vectors = [None] * len(texts)
        order = sorted(range(len(texts)), key=lambda n: -len(texts[n]))
        for start in range(0, len(texts), BATCH):
            batch = order[start : start + BATCH]
            rows = tokenizer([texts[n] for n in batch], padding=True, truncation=True, max_length=256)
            ids, mask = (np.array(rows[key], dtype=np.int64) for key in ("input_ids", "attention_mask"))
            states = forward(ids, mask)
            weights = mask[..., None].astype(np.float32)
            for n, vector in zip(batch, (states * weights).sum(1) / weights.sum(1)):
                vectors[n] = vector / np.linalg.norm(vector)
        return np.array(vectors)

    return encode


def transformers_model(folder: str):
    import torch
    from transformers import AutoModel, AutoTokenizer

    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

        def forward(self, ids, mask):
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    example = torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)
    return Mean(), AutoTokenizer.from_pretrained(folder), example


def _openvino(name: str, folder: str, threads: int):
    import openvino

    model, tokenizer, example = transformers_model(folder)
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if name.endswith("float32"):
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = openvino.Core().compile_model(
        openvino.convert_model(model, example_input=example), "CPU", settings
    )
    return lambda ids, mask: compiled([ids, mask])[0], tokenizer


def _onnx(folder: str, threads: int):
    import tempfile

    import onnxruntime
    import torch

    model, tokenizer, example = transformers_model(folder)
    sizes = {"ids": {0: "batch", 1: "tokens"}, "mask": {0: "batch", 1: "tokens"}}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.onnx"
        names = {"input_names": ["ids", "mask"], "output_names": ["states"], "dynamic_axes": sizes}
        torch.onnx.export(model, example, path, dynamo=False, **names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"ids": ids, "mask": mask})[0], tokenizer


def encode_side(name: str, folder: str, threads: int):
    encode = encoder(name, folder, threads)
    encode(["beta", "holds the model near the reference"])

    def work(texts, folder=None):
        vectors, seconds = timed(lambda: encode(texts))
        if folder:
            np.save(f"{folder}/{name}.npy", vectors)
        return {"seconds": seconds}

    return work


def encode(threads: int, passages: int, turn: int, busy: int, busy_passages: int) -> list[Row]:
    """In turns of `turn` passages; vectors are compared too. Then the same with `busy` processes beside."""
    from ragkit.retrieval.default_encoder import default_folder

    setup = {"folder": str(default_folder()), "threads": threads}
    texts, fast, rows = mixed_passages(passages), "ragkit, bfloat16", []
    # What is compared has the same precision; OpenVINO takes bfloat16 by itself where the processor does.
    pairs = [("ragkit", TORCH, 1.6), ("ragkit", "ONNX Runtime", 1.0), ("ragkit", "OpenVINO, float32", 1.0)]
    pairs += [(fast, "OpenVINO", 1.0), (fast, TORCH, None)]
    names = ["ragkit", fast, TORCH, *(peer for _, peer, _ in pairs[1:4])]
    asks = [{"texts": texts[n : n + turn]} for n in range(0, passages, turn)]
    with tempfile.TemporaryDirectory() as place:
        asks[0]["folder"] = place
        seldom = dict.fromkeys(names[3:], 4)  # every fourth turn is enough for a ratio
        found, _ = beside("encode", names, asks, every=seldom, **setup)
        vectors = {name: np.load(f"{place}/{name}.npy") for name in found}
    least = {
        name: float((v * vectors[TORCH if TORCH in found else "ragkit"]).sum(1).min())
        for name, v in vectors.items()
    }
    asks = [{"texts": [text[:size] for text in texts[:40]]} for size in (200, 1000)]
    growth, _ = beside("encode", ["ragkit"], asks, **setup)
    short, long = (answer["seconds"] / 40 for answer in growth["ragkit"])
    for ours, peer, target in pairs:
        work, grows = f"encode {passages:,} passages of 5 to 230 words", ""
        if ours == fast:
            work += ", in bfloat16"
        if (ours, peer) == pairs[0][:2]:
            grows = f"a text of 200 characters: {spoken(short)} → of 1,000: {spoken(long)}"
        if peer not in found:
            rows.append(Row(work, "", peer, grows=grows))
            continue
        these, those = against(found[ours], found[peer])
        factor = ratio(those, these)
        each = [f"{len(taken) * turn / sum(taken):.0f} a second" for taken in (these, those)]
        if TORCH in found:
            each = [f"{said}, cosine ≥ {least[name]:.5f}" for said, name in zip(each, (ours, peer))]
        reached = None if target is None else factor >= target and least[ours] >= 0.9999
        wanted = f"≥ {target} ×, cosine ≥ 0.9999" if target else ""
        rows.append(Row(work, each[0], peer, each[1], f"{factor:.2f} × as fast", wanted, reached, grows))
    size = max(1, busy_passages // 4)
    asks = [{"texts": texts[n : n + size]} for n in range(0, busy_passages, size)]
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        found, _ = beside("encode", ["ragkit", fast, TORCH], asks, **setup)
    finally:
        for process in others:
            process.kill()
    each = {name: busy_passages / sum(a["seconds"] for a in answers) for name, answers in found.items()}
    said = {name: f"{rate:.1f} a second" for name, rate in each.items()}
    for ours in ("ragkit", fast):
        work = f"encode {busy_passages} with {busy} busy processes beside"
        work += ", in bfloat16" if ours == fast else ""
        if TORCH not in found:
            rows.append(Row(work, said[ours], TORCH))
            continue
        factor = ratio(*against(found[TORCH], found[ours]))
        compared = said[TORCH], f"{factor:.2f} × as fast", "≥ 5 ×", factor >= 5
        rows.append(Row(work, said[ours], TORCH, *compared))
    return rows
