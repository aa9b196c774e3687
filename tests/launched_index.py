"""What `tests/test_streaming.py` launches: `ragkit index` by an encoder without weights, in shards of 8.

python -m torch.distributed.run --nproc-per-node 2 tests/launched_index.py CORPUS FOLDER LOG [TEXT]

LOG gets the texts that are encoded. Whoever is to encode TEXT is killed.
"""

import os
import signal
import sys
from functools import partial

from ragkit.__main__ import main
from ragkit.retrieval import encoder, streaming
from tests.helpers import FakeEncoder


class Logged(FakeEncoder):
    tokenizer, truncated = None, 0

    def __init__(self, *_, **__):
        super().__init__()

    def encode_passages(self, texts, *, progress=True):
        if DEADLY in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        with open(LOG, "a") as log:
            log.writelines(text + "\n" for text in texts)
        return super().encode_passages(texts)


if __name__ == "__main__":
    corpus, folder, LOG, *rest = sys.argv[1:]
    DEADLY = rest[0] if rest else None
    encoder.Encoder = Logged
    streaming.index_corpus = partial(streaming.index_corpus, size=8)
    sys.exit(main(["index", corpus, "--to", folder]))
