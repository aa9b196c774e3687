"""Our Llama beside transformers and llama.cpp: `python -m tests.benchmarks.decoding --model FOLDER`.

The same prompts, passages under ragkit's instruction, and the same number of new tokens for all sides. Each
side is a process of its own, so that memory is its own; they take turns, so that what else the machine does
falls on all of them. llama.cpp runs with `--gguf FILE`, in this Python (`pip install llama-cpp-python`, which
compiles for minutes) or in another that has it: `--peer PYTHON`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from tests.benchmarks.sides import beside, timed
from tests.benchmarks.table import Row, ratio, spoken

ROOT = Path(__file__).parents[2]
OURS, FEW_AT_ONCE, PLAIN, PEER = "ragkit", "ragkit, no guesses", "transformers", "llama.cpp"


def ragkit_side(model: str, guesses: dict):
    from safetensors import safe_open
    from transformers import AutoConfig

    from ragkit.generation.llama import Llama

    class Weights:
        def __getitem__(self, name):  # so that the file does not stay in memory beside what is made of it
            with safe_open(Path(model) / "model.safetensors", "pt") as file:
                return file.get_tensor(name)

    llama = Llama(AutoConfig.from_pretrained(model), Weights())

    def write(ids, new):
        times = []
        emit = lambda ids: times.append(time.perf_counter())  # noqa: E731
        llama.generate(ids, llama.cache(), max_new_tokens=new, ends=(), emit=emit, **guesses)
        return times

    return write, lambda ids: llama.logits(ids, llama.cache(), keep=len(ids)).log_softmax(-1).numpy()


def transformers_side(model: str):
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from ragkit.generation.decoding import token_streamer

    model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    model.generation_config = GenerationConfig()  # no end: as many tokens as are asked for

    def write(ids, new):
        times, ids = [], torch.tensor([ids])
        emit = lambda ids: times.append(time.perf_counter())  # noqa: E731
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, streamer=token_streamer(emit)
            )
        return times

    def score(ids):
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()

    return write, score


def peer_side(file: str, threads: int):
    from llama_cpp import Llama

    settings = {"n_ctx": 1024, "n_threads": threads, "n_threads_batch": threads, "verbose": False}
    model = Llama(file, **settings)

    def write(ids, new):
        times = []
        model.reset()
        for _ in range(new):
            model.eval(ids)
            ids = [model.sample(temp=0.0, repeat_penalty=1.0)]
            times.append(time.perf_counter())
        return times

    def score(ids):
        judge = Llama(file, logits_all=True, **settings)
        judge.eval(ids)
        logits = judge.scores[: len(ids)].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        return (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)

    return write, score


def write_side(name: str, folder: str, file: str, threads: int):
    """The same weights, as transformers has them in `folder` and llama.cpp in `file`."""
    if name == "llama.cpp":
        write, _ = peer_side(file, threads)
    else:
        write, _ = ragkit_side(folder, {})
    write([1] * 20, 2)
    return lambda ids, new: {"seconds": timed(lambda: write(ids, new))[1]}


def read(threads: int, answers: int, tokens: tuple[int, int], new: int) -> list[Row]:
    """The reader's base model, a whole answer: a prompt is read, and so many tokens are written."""
    from ragkit.generation.smollm2 import _installed, base_folder

    took = {}
    for size in tokens:
        asks = [{"ids": ids, "new": new} for ids in prompts(str(base_folder()), answers, size)]
        setup = {"folder": str(base_folder()), "file": str(_installed()), "threads": threads}
        took[size], _ = beside("write", ["ragkit", "llama.cpp"], asks, **setup)
    ours = [answer["seconds"] for answer in took[tokens[-1]]["ragkit"]]
    each = (spoken(median(a["seconds"] for a in took[size]["ragkit"])) for size in tokens)
    grows = " → ".join(f"{size} tokens: {taken}" for size, taken in zip(tokens, each))
    work = f"a whole answer: {tokens[-1]} tokens read, {new} written"
    if "llama.cpp" not in took[tokens[-1]]:
        return [Row(work, spoken(median(ours)), "llama.cpp", target="≤ 1 ×", grows=grows)]
    theirs = [answer["seconds"] for answer in took[tokens[-1]]["llama.cpp"]]
    factor = ratio(ours, theirs)
    said = (spoken(median(theirs)), f"{factor:.2f} × its time", "≤ 1 ×", factor <= 1, grows)
    return [Row(work, spoken(median(ours)), "llama.cpp", *said)]


def serve(side: str, model: str, threads: int) -> None:
    """One side, asked line by line; its answers go to what was standard output when it began."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if side == PEER:
        write, score = peer_side(model, threads)
    else:
        import torch

        torch.set_num_threads(threads)
        write, score = (
            transformers_side(model)
            if side == PLAIN
            else ragkit_side(model, {"guesses": 0} if side == FEW_AT_ONCE else {})
        )
    write([1] * 20, 2)
    for line in sys.stdin:
        asked = json.loads(line)
        if "file" in asked:
            np.save(asked["file"], score(asked["ids"]))
            answer = {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
        else:
            started = time.perf_counter()
            times = write(asked["ids"], asked["new"])
            answer = {"read": times[0] - started, "all": times[-1] - started}
            answer["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(answer), file=answers, flush=True)


def prompts(model: str, number: int, tokens: int) -> list[list[int]]:
    """Questions of the corpus over passages that fill about so many tokens."""
    from transformers import AutoTokenizer

    from ragkit.generation.prompt import Evidence, build_prompt
    from ragkit.retrieval.corpus import DATA, read_jsonl
    from tests.benchmarks.encoding import mixed_passages

    tokenizer = AutoTokenizer.from_pretrained(model)
    questions = [row["text"] for _, row in read_jsonl(DATA / "queries.jsonl")][:: max(1, 300 // number)]
    found = []
    for n, question in enumerate(questions[:number]):
        ids = tokenizer(" ".join(mixed_passages(20, n))).input_ids
        empty = build_prompt(tokenizer, question, [], "sentence", documents=False).ids
        size = (tokens - len(empty)) // 3
        pieces = [Evidence(tokenizer.decode(ids[i * size : (i + 1) * size]), 1, 1.0) for i in range(3)]
        found.append(build_prompt(tokenizer, question, pieces, "sentence", documents=False).ids)
    return found


def middle(values) -> str:
    low, half, high = np.percentile(values, [5, 50, 95])
    return f"{half:8.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="a folder that transformers can load")
    parser.add_argument("--gguf", help="the same model for llama.cpp")
    parser.add_argument("--peer", default=sys.executable, metavar="PYTHON", help="one that has llama_cpp")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=250, help="of a prompt, about")
    parser.add_argument("--new", type=int, default=25, help="tokens to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", choices=[OURS, FEW_AT_ONCE, PLAIN, PEER], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.model, arguments.threads)
        return

    sides, environment = {}, os.environ | {"PYTHONPATH": str(ROOT)}
    for side in [OURS, FEW_AT_ONCE, PLAIN] + [PEER] * bool(arguments.gguf):
        python, model = (
            (arguments.peer, arguments.gguf) if side == PEER else (sys.executable, arguments.model)
        )
        command = [python, __file__, "--serve", side, "--model", model, "--threads", str(arguments.threads)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
        sides[side] = subprocess.Popen(command, **pipes)

    def ask(side: str, **asked) -> dict:
        print(json.dumps(asked), file=sides[side].stdin, flush=True)
        if line := sides[side].stdout.readline():
            return json.loads(line)
        raise RuntimeError(f"{side}: its process ended; what it said stands above")

    texts, found = prompts(arguments.model, arguments.prompts, arguments.tokens), {side: [] for side in sides}
    for turn, ids in enumerate(texts):
        for side in list(sides) if turn % 2 == 0 else reversed(sides):
            found[side].append(ask(side, ids=ids, new=arguments.new))
    sizes = np.array([len(ids) for ids in texts])
    print(
        f"{len(texts)} prompts of {sizes.min()} to {sizes.max()} tokens, {arguments.new} new tokens, "
        f"{arguments.threads} threads; medians, and 5 % to 95 % of the prompts"
    )
    whole = {side: np.array([one["all"] for one in runs]) for side, runs in found.items()}
    for side, runs in found.items():
        read = np.array([one["read"] for one in runs])
        print(side)
        print(f"  answer        {middle(whole[side])} s, {middle(whole[side] / whole[OURS])} times ragkit's")
        print(f"  until a word  {middle(read)} s, {middle(sizes / read)} tokens/s read")
        print(f"  written       {middle((arguments.new - 1) / (whole[side] - read))} tokens/s")
        print(f"  memory        {runs[-1]['memory']:8.2f} GiB at most", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        scored = {side: [] for side in sides if side != FEW_AT_ONCE}
        for ids in texts[: -(-1000 // int(sizes.min()))]:
            for side in scored:
                file = f"{folder}/{len(scored[side])}.npy"
                ask(side, ids=ids, file=file)
                scored[side].append(np.load(file))
        scores = {side: np.concatenate(rows)[:1000] for side, rows in scored.items()}
    for side in scores.keys() - {PLAIN}:
        plain, other = scores[PLAIN], scores[side]
        off = np.abs(plain - other)
        print(
            f"{side} beside transformers in float32, {len(plain)} positions: next token the same at "
            f"{np.mean(plain.argmax(-1) == other.argmax(-1)):.1%}, log p off by at most "
            f"{off.max():.2f} nats ({off[plain > np.log(1e-3)].max():.2f} where p > 0.001), "
            f"KL {np.mean((np.exp(plain) * (plain - other)).sum(-1)):.1e}"
        )
    for process in sides.values():
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
