"""How far each loss moves a generator to a taste, and what that costs: `python -m tests.benchmarks.tuning`.

Simulated annotators compare answers to questions on training topics: `short` likes the phrase better than the
whole sentence, `full` the sentence, `bare` an answer without its source, `sourced` one with it (it starts
from what `bare` made of the model, which cites everything by itself). A difference is felt with logistic
noise, and stated as slightly, clearly or much better. Every method gets the same questions; for
Plackett–Luce, four answers each; for KTO, a thumb for each of the two. Then, on held-out topics, two answers
a question are sampled from the prompt alone, and compared with the model's as it was (same draws):

    moved    share of questions whose answer moved the way of the taste, ties half, with a 95 % interval
    KL       mean log π/π_ref of a sampled answer, nats; length: its tokens, as it was and after
    right    share that cites the sentence that answers, as it was and after

`--reader`: smollm2-reader and 100 comparisons, by the default loss; time and peak memory.
"""

import argparse
import json
import resource
import time
from dataclasses import dataclass

import numpy as np
import torch

from ragkit.evaluation.measures import paired_interval
from ragkit.generation.answer_loss import SIMPO
from ragkit.generation.generator import Generator
from ragkit.generation.policy import Policy
from ragkit.generation.tuning import tune
from ragkit.preferences.judgements import Comparison, Feedback, Ranking
from ragkit.retrieval.corpus import DATA, Hit, Passage
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.library import Library
from ragkit.retrieval.search import retrieve

# The stated strengths are some 2.4 β on average here. A larger h lets a pair stop earlier: at one β, grpo
# would stay nearer to the model as it was than dpo.
STATED = {"beta": 0.1 / 2.4}
METHODS = {
    "grpo": STATED,
    "grpo + supervised": STATED | {"supervised": 0.2},
    "grpo normalised": {"normalise": True, "beta": 2.0 / 2.4},
    "dpo": {"loss": "dpo"},
    "dpo + supervised": {"loss": "dpo", "supervised": 0.2},
    "ipo": {"loss": "ipo"},
    "plackett_luce": {"loss": "plackett_luce"},
    "kto": {"loss": "kto"},
    "kto + supervised": {"loss": "kto", "supervised": 0.2},
    # Towards answers that are rare in the model: Δ = logit(p) / β must be as large as they are rare.
    "dpo, far": {"loss": "dpo", "beta": 0.003, "supervised": 1.0, "epochs": 6},
    "simpo": SIMPO,
    "simpo + supervised": SIMPO | {"supervised": 0.2},
}
TASTES = {"short": "sentence", "full": "phrase", "bare": "sentence", "sourced": "sentence"}
SLOPE = 2.5  # utility, in logits, of the better kind of answer


@dataclass
class Case:
    """A question, its hits, the number of the sentence that answers, that sentence, the phrase in it, and
    another sentence that was read; sentences with the hits that they stand in, [n]."""

    query: str
    hits: list[Hit]
    number: int
    support: str
    key: str
    other: str
    cited: str
    cited_other: str


def cases(generator: Generator, split: str, limit: int) -> list[Case]:
    """Questions whose answering sentence is among what the model reads."""
    library = Library.load(DATA / "index")
    rows = map(json.loads, (DATA / "queries.jsonl").read_text(encoding="utf-8").splitlines())
    texts = {row["_id"]: row["text"] for row in rows if row["metadata"]["split"] == split}
    found = []
    lines = (DATA / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    for index in np.random.default_rng(0).permutation(len(lines)):
        row = json.loads(lines[index])
        if (query := texts.get(row["query_id"])) is None or len(found) == limit:
            continue
        hits = retrieve(library, generator.encoder.encode_query(query), k=3)
        pieces = generator.prompt(query, hits).evidence
        read = [piece.text for piece in pieces]
        support, key = row["support"], row["key"]
        if support in read[:9] and len(read) > 1 and key in support and len(key) < 0.7 * len(support):
            own, other = read.index(support), next(n for n, text in enumerate(read) if text != support)
            cited = [f"[{pieces[n].hit}]" for n in (own, other)]
            found.append(Case(query, hits, own + 1, support, key, read[other], *cited))
    return found


def utility(taste: str, text: str, case: Case) -> float:
    """In logits, without noise."""
    whole, cited = case.support in text, text.startswith("[")
    return SLOPE * {"short": not whole, "full": whole, "bare": not cited, "sourced": cited}[taste]


def judged(taste: str, method: str, some: list[Case], seed: int) -> list:
    """What the annotator says of each case, in the form that the method takes."""
    random, said = np.random.default_rng(seed), []
    for case in some:
        long, short = f"{case.cited} {case.support}", f"{case.cited} {case.key}"
        two = [long, short] if taste in ("short", "full") else [long, case.support]
        if method == "plackett_luce":
            wrong = f"{case.cited_other} {case.other}"
            four = [*two, wrong, f"{long} {case.other}" if taste in ("short", "full") else case.key]
            felt = [utility(taste, text, case) + random.gumbel() for text in four]
            order = np.argsort(felt)[::-1].tolist()
            passages = [Passage(str(n), text) for n, text in enumerate(four)]
            said.append(Ranking(case.query, passages, [[index] for index in order]))
            continue
        a, b = (utility(taste, text, case) for text in two)
        felt = b - a + random.logistic()
        if method.startswith("kto"):
            said += [Feedback(case.query, text, good) for text, good in zip(two, (felt < 0, felt > 0))]
        else:
            rating = int(np.clip(np.ceil(abs(felt) / 1.2), 1, 3) * np.sign(felt))
            said.append(Comparison(case.query, *two, rating))
    return said


def sampled(generator: Generator, style: str, tests: list[Case], base: Generator) -> dict[str, np.ndarray]:
    """Of each case the mean over two sampled answers: length, KL to `base`, cites, cites right."""
    policy, reference = Policy(generator), Policy(base)
    found = {name: [] for name in ("length", "kl", "cites", "right")}
    for at in range(0, len(tests), 10):
        some = tests[at : at + 10]
        prompts = [base.prompt(case.query, case.hits, style=style) for case in some]
        ids = [prompt.ids for prompt in prompts]
        answers = policy.write(ids, 2, seed=at)
        with torch.no_grad():
            moved = policy.log_probs(ids, answers) - reference.log_probs(ids, answers)
        found["kl"] += moved.view(-1, 2).mean(1).tolist()
        for case, prompt, two in zip(some, prompts, answers):
            numbers = range(1, 1 + len(prompt.evidence))
            first = [tuple(base.citation_ids(n)[:1]) for n in numbers]
            found["length"].append(np.mean([len(ids) for ids in two]))
            found["cites"].append(np.mean([tuple(ids[:1]) in first for ids in two]))
            found["right"].append(np.mean([tuple(ids[:1]) == first[case.number - 1] for ids in two]))
    return {name: np.array(values) for name, values in found.items()}


def moved(taste: str, before: dict, after: dict):
    """Which answers went the way of the taste, ties half: an interval."""
    name = "length" if taste in ("short", "full") else "cites"
    sign = 1 if taste in ("full", "sourced") else -1
    way = np.sign(sign * (after[name] - before[name]))
    return paired_interval(np.zeros(len(way)), (way + 1) / 2)


def run(start: Generator, taste: str, method: str, both: tuple[list[Case], list[Case]], before, more, seed=0):
    train, tests = both
    hits = {case.query: case.hits for case in train}
    began, cpu, style = time.monotonic(), time.process_time(), TASTES[taste]
    settings = {"hits": hits, "style": style, "cite": False, "seed": seed, "looks": 20, "progress": False}
    tuned = tune(start, judged(taste, method, train, seed), **(METHODS[method] | settings | more))
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # so far
    after = sampled(tuned.generator, style, tests, start)
    best = min(tuned.log, key=lambda row: row["loss"])
    print(
        f"  {method:20} {moved(taste, before, after)!s:28} KL {after['kl'].mean():6.2f}  "
        f"length {before['length'].mean():5.1f} → {after['length'].mean():5.1f}  "
        f"right {before['right'].mean():.2f} → {after['right'].mean():.2f}  "
        f"held-out accuracy {best['rewards/accuracies']:.2f}, chosen log p {best['logps/chosen']:+7.1f} "
        f"(was {tuned.log[0]['logps/chosen']:+.1f}); best at step {best['step']} of {tuned.log[-1]['step']}, "
        f"{seconds:.0f} s ({cpu:.0f} s of CPU time), at most {peak:.2f} GiB",
        flush=True,
    )
    return tuned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tastes", nargs="+", default=list(TASTES), choices=TASTES)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--train", type=int, default=100, help="questions that are compared")
    parser.add_argument("--test", type=int, default=60, help="questions on held-out topics")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="store_true")
    parser.add_argument("--settings", type=json.loads, default={}, help="more of tune's arguments, as JSON")
    given = parser.parse_args()
    base = Generator("smollm2-reader" if given.reader else "tiny-rag-lm", Encoder(), device="cpu")
    train, tests = cases(base, "train", given.train), cases(base, "test", given.test)
    methods = ["grpo"] if given.reader else given.methods
    for taste in ["short"] if given.reader else given.tastes:
        start = base
        if taste == "sourced":
            print("\nbare, once more: where the next starts")
            before = sampled(base, "sentence", tests, base)
            start = run(base, "bare", "dpo, far", (train, tests), before, {}).generator
        before = sampled(start, TASTES[taste], tests, start)
        print(f"\n{taste}: {len(train)} questions judged, {len(tests)} on held-out topics", given.settings)
        for method in methods:
            run(start, taste, method, (train, tests), before, given.settings, given.seed)
    print(f"\n{torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
