"""What an answer costs, in time and memory: `python -m tests.benchmarks.reading_speed smollm2-reader`.

Nothing is remembered of sentences encoded before. The process has one model, so its peak is that model's,
with the encoder and the corpus's index.
"""

import argparse
import re
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="so many questions")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    started = time.perf_counter()
    import torch

    from ragkit.generation.generator import Generator
    from ragkit.retrieval.corpus import DATA
    from ragkit.retrieval.encoder import Encoder

    torch.set_num_threads(arguments.threads)
    encoder = Encoder(memory=0)
    generator = Generator(arguments.model, encoder)
    start = time.perf_counter() - started

    sys.path.insert(0, str(DATA / "build"))
    from reading_cases import corpus_cases

    cases = corpus_cases(encoder, "test", arguments.limit)["answerable"]
    prompts = {}
    steps = {
        "evidence": lambda case: prompts.update({case.query: generator.prompt(case.query, case.hits)}),
        "reading": lambda case: generator.citation_log_probs(prompts[case.query]),
    }
    for style in ("sentence", "phrase", *(["free"] if generator.reader else [])):
        steps[f"answer, {style}"] = lambda case, s=style: generator.answer(case.query, case.hits, style=s)
    print(f"  {Path(arguments.model).name}: {start:.1f} s to start, {len(cases)} questions")
    for step, run in steps.items():
        run(cases[0])  # the first is slower
        taken = []
        for case in cases:
            began = time.perf_counter()
            run(case)
            taken.append(1000 * (time.perf_counter() - began))
        taken.sort()
        late = taken[int(0.95 * (len(taken) - 1))]
        print(f"    {step:18} median {taken[len(taken) // 2]:5.0f} ms, 95th percentile {late:5.0f} ms")
    print(f"    peak memory {peak_memory() / 2**20:.0f} MiB")


def peak_memory() -> int:
    """In bytes. On Linux `ru_maxrss` would count what the process that started this one had."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


if __name__ == "__main__":
    main()
