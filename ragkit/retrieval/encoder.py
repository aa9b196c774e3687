"""Texts to unit vectors: the bi-encoder behind the library and the query."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path

import numpy as np

from ragkit.retrieval.default_encoder import DEFAULT, checked_weights, default_folder
from ragkit.retrieval.in_context import in_context
from ragkit.retrieval.loading import (
    SAFE,
    check_weights,
    default_device,
    loading,
    pooling_modes,
    sidecar,
    tokenizer_and_config,
    without_bars,
)
from ragkit.retrieval.memory import MEMORY, Memory
from ragkit.retrieval.text import readable
from ragkit.retrieval.windows import batches, pool, token_rows

# Padded tokens in one forward pass: on a CPU, more keep it no busier, and pad short texts to long ones.
TOKENS_PER_BATCH = {"cpu": 512, "cuda": 8192}
DTYPES = ("float32", "bfloat16")


class Encoder:
    """A sentence encoder: `encode` gives float32 vectors of length 1, so that inner product is cosine.

    `name` is "all-MiniLM-L6-v2" (off-line, its weights checked against the published sha256), a folder, or
    any encoder on the Hugging Face Hub. Pooling and window come from the model's own sentence-transformers
    files where it has them; otherwise mean pooling over the whole window (Reimers & Gurevych, arXiv
    1908.10084). Some models want a prefix on one side, as E5 does: `query_prefix="query: "`. `device`: where
    it runs (default: a CUDA GPU where there is one).

    A text is encoded once: vectors are kept by text, up to `memory` bytes (0: none), for this encoder alone.
    `truncated` counts the texts that were cut at the window of `max_tokens` tokens.

    `dtype="bfloat16"`: a BERT's products of such numbers, on a CPU. Where the processor multiplies them
    (AVX512_BF16, AMX), half as fast again; vectors have a cosine of 0.9999 or more to those of float32, and
    another `fingerprint`, since no digit after the third is theirs.

    Raises OSError where there is no such model or its weights are damaged, and ValueError for a model or
    settings that are not computed here.
    """

    def __init__(
        self,
        name: str = DEFAULT,
        *,
        query_prefix: str = "",
        passage_prefix: str = "",
        device: str | None = None,
        memory: int = MEMORY,
        dtype: str = "float32",
    ):
        import torch

        from ragkit.retrieval.bert import supported

        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r}: one of {', '.join(DTYPES)}")
        self.name = name
        self.device = torch.device(device or default_device())
        self.query_prefix, self.passage_prefix = query_prefix, passage_prefix
        self.truncated, self._warned = 0, False
        self._memory = Memory(memory)
        self._fast = None  # the weights' versions, and what computes with them
        path = default_folder() if name == DEFAULT else Path(name).expanduser()
        self._weights_sha = checked_weights(path / "model.safetensors") if name == DEFAULT else ""
        local = path.is_dir()
        source = path if local else name
        with loading("encoder", name, DEFAULT), without_bars():
            self.tokenizer, config = tokenizer_and_config(source, local, known=name == DEFAULT)
            modules = sidecar(source, "modules.json") or []
            layers = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in modules}
            pooling = sidecar(source, f"{layers.get('Pooling', '1_Pooling')}/config.json")
            sizes = sidecar(source, "sentence_bert_config.json") or {}
        self._source, self._config, self._bert = source, config, supported(config, self.device)
        if not (self._bert and self._weights_sha):
            _ = self.model  # and its weights are checked
        if not set(self.tokenizer.get_vocab()) - set(self.tokenizer.all_special_tokens):
            raise OSError(f"encoder {name!r}: its tokenizer has no words; take the whole folder again")
        self.dtype = dtype
        if dtype != "float32" and not self._bert:
            raise ValueError(f"dtype={dtype!r}: {name!r} is no BERT on an x86 processor; leave it out")
        if unknown := sorted(layers.keys() - {"Transformer", "Pooling", "Normalize"}):
            raise ValueError(f"encoder {name!r} has layers that ragkit does not apply: {unknown}")
        modes = pooling_modes(pooling or {})
        if modes not in (["mean"], ["cls"]):
            raise ValueError(f"encoder {name!r} pools neither by mean nor by CLS alone: {pooling}")
        self.pooling = modes[0]
        limits = [sizes.get("max_seq_length"), getattr(config, "max_position_embeddings", None)]
        self.max_tokens = int(min(filter(None, [self.tokenizer.model_max_length, *limits])))
        self.tokenizer.model_max_length = self.max_tokens
        # Undoes the truncation that its file sets, before threads share it.
        token_rows(self.tokenizer, self.max_tokens, [""])
        self.dimension = int(config.hidden_size)

    @cached_property
    def model(self):
        """The transformers model. The default one's is loaded when first asked for: importing what it needs
        takes two seconds, and `Bert` computes the same from its checked file."""
        from transformers import AutoModel

        with loading("encoder", self.name, DEFAULT), without_bars():
            local = isinstance(self._source, Path)
            model, told = AutoModel.from_pretrained(self._source, local_files_only=local, **SAFE)
        check_weights(model, told, f"encoder {self.name!r}")
        return model.float().eval().to(self.device)

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 that changes when any vector could: weights, vocabulary, pooling, window, prefixes."""
        digest = hashlib.sha256(self._weights_sha.encode())
        if not self._weights_sha:
            for key, tensor in sorted(self.model.state_dict().items()):
                digest.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
        settings = [self.pooling, self.max_tokens, self.query_prefix, self.passage_prefix]
        settings += [] if self.dtype == "float32" else [self.dtype]
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        digest.update(json.dumps([settings, vocabulary]).encode())
        return digest.hexdigest()

    def encode(self, texts: str | list[str], *, progress: bool = True, warn: bool = True) -> np.ndarray:
        """Vectors of `texts`: float32, unit norm; (D,) for one string, (N, D) for a list, in its order.

        Texts beyond the window are cut there, which is counted, and said of the first ones unless `warn` is
        False. A progress bar appears on work that takes more than three seconds. Raises TypeError where a
        text is not a string.
        """
        if isinstance(texts, str):
            return self._vectors([texts], False, warn)[0]
        return self._vectors(_checked_texts(texts), progress, warn)

    def encode_query(self, query: str) -> np.ndarray:
        """The query vector, (D,): `encode` with the query prefix of models that have one. Raises TypeError
        for a query that is no string."""
        if not isinstance(query, str):
            raise TypeError(f"the query is a {type(query).__name__}, not a string")
        return self.encode(self.query_prefix + query)

    def encode_passages(self, texts: list[str], *, progress: bool = True, warn: bool = True) -> np.ndarray:
        """Passage vectors, (N, D): `encode` with the passage prefix of models that have one. Raises TypeError
        for what is no list of strings."""
        if isinstance(texts, str):  # it would be encoded letter by letter
            raise TypeError("encode_passages takes a list of texts, not one string")
        texts = [self.passage_prefix + text for text in _checked_texts(texts)]
        return self.encode(texts, progress=progress, warn=warn)

    def encode_sentences(
        self,
        texts: list[str],
        spans: list[list[tuple[int, int]]],
        *,
        progress: bool = True,
        warn: bool = False,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Passages and their sentences: vectors (W, D) and (S, D) of each text, float32, unit norm.

        A text is run once, all of it, in W windows of `max_tokens`; the first one's vector is that of
        `encode_passages`, and each other begins with the sentence that the one before has cut. A sentence's
        vector is the mean of its tokens' last states, so that it knows what stands around it (late chunking,
        arXiv 2409.04701). A model that pools by CLS has trained no other token's state: it runs each sentence
        alone, as far as its window goes. `spans`: where the S sentences of each text begin and end, in
        characters, in order. With `warn`, texts of several windows count as cut: their own vector is that of
        the first. Raises ValueError where there are not as many spans as texts.
        """
        keys = self._sentence_keys(texts, spans)
        known = self._memory.get(keys)
        new = {key: n for n, key in enumerate(keys) if key not in known}
        if new:
            some = [texts[n] for n in new.values()]
            made = in_context(self, some, [spans[n] for n in new.values()], progress)
            self._memory.put(list(new), made)
            self._memory.put([self.passage_prefix + text for text in some], [one[0] for one in made])
            known.update(zip(new, made))
        found = [known[key].copy() for key in keys]  # callers may change theirs
        if warn and (cut := [n for n in new.values() if len(known[keys[n]]) > len(spans[n]) + 1]):
            self._count_cut(texts[cut[0]], len(cut), len(texts))
        return [tuple(np.split(vectors, [len(vectors) - len(own)])) for vectors, own in zip(found, spans)]

    def remember(self, texts: list[str], vectors: np.ndarray) -> None:
        """Passage vectors, (N, D), that this encoder has made already: those of a `Library`, say.

        Raises ValueError where their shape is another.
        """
        if np.shape(vectors) != (len(texts), self.dimension):
            raise ValueError(
                f"vectors of shape {np.shape(vectors)} for {len(texts)} texts: "
                f"({len(texts)}, {self.dimension}) was expected"
            )
        self._memory.put([self.passage_prefix + text for text in texts], np.asarray(vectors))

    def remember_sentences(
        self, texts: list[str], spans: list[list[tuple[int, int]]], vectors: list[np.ndarray]
    ) -> None:
        """What `encode_sentences` has made of texts already: of each, (W + S, D)."""
        self._memory.put(self._sentence_keys(texts, spans), vectors)

    def _sentence_keys(self, texts: list[str], spans: list[list[tuple[int, int]]]) -> list[str]:
        return [f"{self.passage_prefix}{text}\0{own}" for text, own in zip(texts, spans, strict=True)]

    def __getstate__(self) -> dict:
        # A copy may be changed.
        return vars(self) | {"_memory": Memory(self._memory.limit), "_fast": None}

    def _vectors(self, texts: list[str], progress: bool, warn: bool) -> np.ndarray:
        known = self._memory.get(texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new or not texts:
            made = self._computed(new, progress, warn)
            self._memory.put(new, made)
            if len(new) == len(texts):
                return made
            known.update(zip(new, made))
        return np.stack([known[text] for text in texts])

    def _computed(self, texts: list[str], progress: bool, warn: bool) -> np.ndarray:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for batch, pooled, _ in self._run(self._token_ids(texts, warn) if texts else [], progress):
            vectors[batch] = pooled
        return vectors

    def _run(self, rows: list[list[int]], progress: bool) -> Iterator[tuple]:
        """(indices, vectors (B, D), last states (B, T, D)) of rows of token ids, batch by batch."""
        import torch
        from tqdm.auto import tqdm

        from ragkit.retrieval.side_by_side import side_by_side

        def compute(batch: list[int]) -> tuple:
            padded = self.tokenizer.pad({"input_ids": [rows[i] for i in batch]}, return_tensors="pt")
            padded = padded.to(self.device)
            with torch.inference_mode():
                states = self._states(padded)
                pooled = pool(states, padded["attention_mask"], self.pooling)
                return batch, torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy(), states

        if self._bert:
            self._fast_bert()  # before threads share it
        threads = torch.get_num_threads() if self._bert else 1
        todo = batches(list(map(len, rows)), TOKENS_PER_BATCH.get(self.device.type, 4096))
        bar = tqdm(total=len(rows), desc="encoding", unit="text", delay=3, disable=not progress, leave=False)
        with bar, closing(side_by_side(compute, todo, threads)) as done:
            for one in done:
                yield one
                bar.update(len(one[0]))

    def _states(self, padded):
        """The last layer's states, (B, T, D), of a batch from the tokenizer."""
        if not self._bert:
            return self.model(**padded).last_hidden_state
        return self._fast_bert()(padded["input_ids"], padded["attention_mask"])

    def _fast_bert(self):
        """What computes with the weights as they are now."""
        import torch
        from safetensors.torch import load_file

        from ragkit.retrieval.bert import Bert

        model = vars(self).get("model")
        weights = model and [weight._version for weight in model.parameters()]
        if self._fast is None or self._fast[0] != weights:  # the first time, and when a weight was changed
            state = model.state_dict() if model else load_file(self._source / "model.safetensors")
            self._fast = weights, Bert(self._config, state, getattr(torch, self.dtype))
        return self._fast[1]

    def _token_ids(self, texts: list[str], warn: bool = True) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut at the window; the cut ones are counted."""
        rows, cut = token_rows(self.tokenizer, self.max_tokens, [readable(text) for text in texts])
        if cut:
            self._count_cut(texts[cut[0]], len(cut), len(texts), warn, stacklevel=6)
        return [row["input_ids"] for row in rows]

    def _count_cut(self, first: str, cut: int, of: int, warn: bool = True, stacklevel: int = 3) -> None:
        with self._memory.lock:
            warn = warn and not self._warned
            self.truncated += cut
            self._warned |= warn
        if warn:
            warnings.warn(
                f"{cut} of {of} texts are longer than the encoder's window of {self.max_tokens} tokens; what "
                f"lies beyond it was not encoded (the first begins {first[:40]!r}). This is said once; "
                "Encoder.truncated goes on counting",
                stacklevel=stacklevel,
            )


def _checked_texts(texts: Iterable[str]) -> list[str]:
    texts = list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{index}] is a {type(text).__name__}, not a string")
    return texts
