"""Scoring an answer under k documents at once, and one by one: `python -m tests.benchmarks.marginal`.

Questions of the corpus on test topics, over the k sentences that the encoder ranks first; of each supporting
sentence the first tokens, the same number for all. One by one is transformers' own forward pass over each
prompt and the answer, without the logits that nobody asks for. The two take turns, question by question.
"""

import argparse
import time

import numpy as np
import torch

from ragkit.generation.generator import SHIPPED, Generator
from ragkit.generation.llama import common_start
from ragkit.generation.marginal import Marginal, answer_ids
from ragkit.retrieval.corpus import DATA, read_jsonl
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.lexical import hybrid_search
from ragkit.retrieval.library import Library


def cases(generator: Generator, encoder: Encoder, k: int, tokens: int, number: int):
    """(the question's k prompts, the tokens of an answer) of so many questions."""
    library = Library.load(DATA / "index", encoder)
    queries = {row["_id"]: row for _, row in read_jsonl(DATA / "queries.jsonl")}
    found = []
    for _, row in read_jsonl(DATA / "answers.jsonl"):
        query, answer = queries[row["query_id"]], answer_ids(generator, row["support"])[:tokens]
        if query["metadata"]["split"] != "test" or len(answer) < tokens:
            continue
        hits = hybrid_search(library, query["text"], encoder.encode_query(query["text"]), k)
        marginal = Marginal.of(generator, query["text"], hits)
        if len(marginal.prompts) >= k:
            marginal.prompts = marginal.prompts[:k]
            found.append((marginal, answer))
        if len(found) == number:
            break
    return found


def one_by_one(model, prompts: list[list[int]], answer: list[int]) -> torch.Tensor:
    """(k, T)."""
    rows, size = [], len(answer)
    for prompt in prompts:
        logits = model(torch.tensor([[*prompt, *answer[:-1]]]), logits_to_keep=size).logits[0]
        rows.append(logits.float().log_softmax(-1)[range(size), answer])
    return torch.stack(rows)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--k", type=int, default=5, help="documents")
    parser.add_argument("--tokens", type=int, default=30, help="of the answer")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--models", nargs="+", default=list(SHIPPED))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    encoder = Encoder()
    for name in arguments.models:
        generator = Generator(name, encoder, device="cpu")
        found = cases(generator, encoder, arguments.k, arguments.tokens, arguments.questions)
        ways = {
            "together": lambda marginal, answer: marginal.log_probs(answer),
            "one by one": lambda marginal, answer: one_by_one(marginal.model, marginal.prompts, answer),
        }
        taken, off = {way: [] for way in ways}, 0.0
        for turn, case in enumerate([found[0], *found]):
            logs = []
            for way in list(ways) if turn % 2 else reversed(ways):
                began = time.perf_counter()
                logs.append(ways[way](*case))
                taken[way].append(time.perf_counter() - began)
            off = max(off, (logs[0] - logs[1]).abs().max().item())
        seconds = {way: np.array(times[1:]) for way, times in taken.items()}  # the first is slower
        ratio = np.median(seconds["together"] / seconds["one by one"])
        prompts = [marginal.prompts for marginal, _ in found]
        sizes = [len(prompt) for own in prompts for prompt in own]
        common = np.median([min(common_start(own[0], prompt) for prompt in own) for own in prompts])
        print(
            f"{name}: {len(found)} questions, k = {arguments.k}, prompts of {min(sizes)} to {max(sizes)} "
            f"tokens, {common:.0f} of them in common, {arguments.tokens} of the answer"
        )
        for way, times in seconds.items():
            print(f"  {way:10} median {1000 * np.median(times):6.0f} ms")
        print(f"  ratio {ratio:.2f}; log-probabilities at most {off:.1e} apart", flush=True)


if __name__ == "__main__":
    main()
