"""A Llama model on a CPU: what was read is kept, and what it copies is written several tokens at a time.

transformers runs every model everywhere; for one small model on two cores, most of its time goes into moving
weights that need not be float32, and into reading again what was read before. The forward pass is here once,
in plain torch: RMSNorm, rotary positions, grouped queries, a gated feed-forward layer.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock

import torch
from torch.nn import functional as F

# Up to so many tokens, a product waits for its weights to arrive: half as many bytes, half the time. Beyond,
# arithmetic is what takes the time.
FEW = 12
# Beyond, rows are filled up to a multiple of this: oneDNN keeps a program for each number of rows that it has
# seen, 2 MB for all of SmolLM2's layers (`python -m tests.benchmarks.chat`).
ROWS = 32
# So many tokens are read along on a guess. Four cost half a pass, and save a third of the time of writing.
GUESSES = 4
THREADS = 4  # that make layers, at most
NORMS = ("input", "post_attention")
PROJECTIONS = [f"self_attn.{part}" for part in "qkvo"] + [f"mlp.{part}" for part in ("gate", "up", "down")]


def fast_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it (AVX512_BF16, AMX); elsewhere it is slower than float32."""
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


class KeyValueCache:
    """What a model keeps of the tokens `ids` that it has read: keys and values, (layer, head, place, size).

    It saves time and changes nothing but roundings. For one thread at a time.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, ids: Sequence[int] = ()):
        self.keys, self.values, self.ids = keys, values, [*ids]

    def copy(self) -> "KeyValueCache":
        """Another one that holds the same and goes its own way."""
        return KeyValueCache(self.keys.clone(), self.values.clone(), self.ids)

    def make_room(self, places: int) -> None:
        """Have room for at least so many tokens."""
        if (more := places - self.keys.shape[2]) > 0:
            self.keys, self.values = (F.pad(old, (0, 0, 0, more + 128)) for old in (self.keys, self.values))


class Llama:
    """A `LlamaForCausalLM` for inference on a CPU, from its `config` and its `state_dict()`.

    `state` is asked for one weight at a time, and once more when writing begins; unless in float32, none but
    the embedding is kept.
    `dtype`: float32 gives transformers' logits up to the order of sums. bfloat16 (default where the processor
    multiplies it) reads prompts by products of bfloat16 numbers, and writes with float16 weights; everything
    between the products is float32. SmolLM2-135M's log p where p > 0.001 is then off by up to 0.3 nats after
    reading (`python -m tests.benchmarks.decoding`), by 0.02 where every token was read alone.
    Threads may share a model, each with a cache of its own.
    Raises ValueError for a model whose config asks for what is not here: biases, scaled positions.
    """

    def __init__(self, config, state: Mapping[str, torch.Tensor], *, dtype: torch.dtype | None = None):
        rope = config.rope_parameters
        asked = {
            "model_type": (config.model_type, "llama"),
            "hidden_act": (config.hidden_act, "silu"),
            "attention_bias": (config.attention_bias, False),
            "mlp_bias": (config.mlp_bias, False),
            "rope_type": (rope["rope_type"], "default"),
        }
        for name, (value, known) in asked.items():
            if value != known:
                raise ValueError(f"{name}={value!r}: this Llama knows {known!r} only; use transformers")
        dtype = dtype or fast_dtype()
        self.window: int = config.max_position_embeddings
        self._eps, self._size = config.rms_norm_eps, config.head_dim
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        frequency = rope["rope_theta"] ** (-torch.arange(0, self._size, 2) / self._size)
        angles = torch.outer(torch.arange(self.window), frequency)
        self._turns = torch.polar(torch.ones_like(angles), angles)[:, None]  # (place, 1, size / 2), complex

        self._norm = state["model.norm.weight"].float().clone()
        self._embedding = state["model.embed_tokens.weight"]  # of a file's, only rows that are used are read
        head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
        with self._pool() as pool:
            made = pool.submit(lambda: _few(state[f"{head}.weight"].float(), dtype))
            self._norms = [
                [state[f"model.layers.{n}.{name}_layernorm.weight"].float().clone() for name in NORMS]
                for n in range(config.num_hidden_layers)
            ]
            self._reading = self._products(pool, state, partial(_many, dtype=dtype))
            self._head = made.result()
        # What writes is made when a first token is written: who only reads needs none of it.
        self._writing = self._reading if dtype == torch.float32 else None
        self._state = None if self._writing else state
        self._dtype, self._lock = dtype, Lock()

    def _pool(self) -> ThreadPoolExecutor:
        """One thread packs a matrix, and holds no lock of Python's meanwhile; a few layers at once, not more,
        since those that are being made are there in float32."""
        return ThreadPoolExecutor(min(torch.get_num_threads(), THREADS))

    def _products(self, pool, state: Mapping[str, torch.Tensor], product: Callable) -> list[list[Callable]]:
        """Of each layer: of queries, keys and values; of what attention says; of gate and up; and down."""

        def pairs(weight: torch.Tensor) -> torch.Tensor:
            """Rows in the order in which the two halves of a head are the parts of complex numbers."""
            return weight.unflatten(0, (-1, 2, self._size // 2)).transpose(1, 2).reshape(weight.shape)

        def layer(n: int) -> list[Callable]:
            q, k, v, out, gate, up, down = (
                state[f"model.layers.{n}.{name}_proj.weight"].float() for name in PROJECTIONS
            )
            matrices = torch.cat([pairs(q), pairs(k), v]), out, torch.cat([gate, up]), down
            return [product(matrix) for matrix in matrices]

        return list(pool.map(layer, range(len(self._norms))))

    def _layers(self, new: int) -> Iterator[tuple]:
        """Norms and products of each layer, for so many tokens at once."""
        if new <= FEW and self._writing is None:
            with self._lock, self._pool() as pool:
                if self._writing is None:
                    few = partial(_few, dtype=self._dtype)
                    self._writing, self._state = self._products(pool, self._state, few), None
        return zip(self._norms, self._writing if new <= FEW else self._reading)

    def cache(self) -> KeyValueCache:
        """An empty one."""
        empty = torch.empty(len(self._norms), self._groups, 0, self._size)
        return KeyValueCache(empty, empty)

    @torch.inference_mode()
    def logits(self, ids: Sequence[int], cache: KeyValueCache, *, keep: int = 1) -> torch.Tensor:
        """(keep, V): after each of the last `keep` tokens of `ids`, the logits of the next one.

        Only what follows the longest common start of `ids` and `cache.ids` is read, and kept in `cache`: so
        an instruction that many prompts begin with is read once, and several continuations of one prompt
        take turns. Raises ValueError for more tokens than the window and for none.
        """
        if not 0 < keep <= len(ids) <= self.window:
            raise ValueError(f"{keep} of {len(ids)} tokens: 1 to {self.window}, the model's window")
        start = min(common_start(ids, cache.ids), len(ids) - keep)
        new, heads, both = len(ids) - start, self._heads, self._heads + self._groups
        cache.make_room(len(ids))
        cache.ids = cache.ids[:start]  # should anything fail, what is overwritten below is not taken for read
        turns = self._turns[start : len(ids)]
        unseen = torch.full((new, len(ids)), -torch.inf).triu(start + 1) if new > 1 else None
        x = self._embedding[torch.tensor(ids[start:])].float()  # (new, hidden)
        for n, ((norm, feed_norm), (qkv, out, gate_up, down)) in enumerate(self._layers(new)):
            y = qkv(F.rms_norm(x, norm.shape, norm, self._eps)).view(new, both + self._groups, self._size)
            turned = torch.view_as_complex(y[:, :both].unflatten(-1, (-1, 2))) * turns
            turned = torch.view_as_real(turned).flatten(-2).transpose(0, 1)  # (head, new, size)
            keys, values = cache.keys[n, :, : len(ids)], cache.values[n, :, : len(ids)]
            keys[:, start:], values[:, start:] = turned[heads:], y[:, both:].transpose(0, 1)
            seen = F.scaled_dot_product_attention(
                turned[None, :heads], keys[None], values[None], attn_mask=unseen, enable_gqa=True
            )
            x = x + out(seen[0].transpose(0, 1).reshape(new, -1))
            gate, up = gate_up(F.rms_norm(x, norm.shape, feed_norm, self._eps)).chunk(2, -1)
            x = x + down(F.silu(gate) * up)
        cache.ids = [*ids]
        return self._head(F.rms_norm(x[-keep:], self._norm.shape, self._norm, self._eps))

    @torch.inference_mode()
    def generate(
        self,
        ids: Sequence[int],
        cache: KeyValueCache,
        *,
        max_new_tokens: int,
        ends: Collection[int],
        processors: Sequence[Callable] = (),
        emit: Callable[[list[int]], None] | None = None,
        guesses: int = GUESSES,
    ) -> list[int]:
        """New token ids after `ids`, the likeliest at each step, up to and with one of `ends`.

        `processors` change the logits before the choice, as transformers' do: (1, n) ids and (1, V) logits to
        (1, V). `emit` gets all new ids after each. An answer from passages copies: where its last words stood
        before, the `guesses` tokens that followed there are read along, and those that are chosen anyway cost
        no pass of their own (prompt lookup decoding, a draft model's part in arXiv 2211.17192).
        """
        ids, first = [*ids], len(ids)
        while (left := first + max_new_tokens - len(ids)) > 0:
            guessed = _what_followed(ids, min(guesses, left - 1))
            rows = self.logits([*ids, *guessed], cache, keep=len(guessed) + 1)
            for scores, guess in zip(rows, [*guessed, None]):
                for process in processors:
                    scores = process(torch.tensor([ids]), scores[None])[0]
                ids.append(int(scores.argmax()))
                if emit:
                    emit(ids[first:])
                if ids[-1] in ends:
                    return ids[first:]
                if ids[-1] != guess:
                    break
        return ids[first:]


def _few(weight: torch.Tensor, dtype: torch.dtype) -> Callable:
    """x ↦ x·weightᵀ, both float32, for x of a few rows."""
    if dtype == torch.float32:
        return lambda x: F.linear(x, weight)
    packed = torch.ops.quantized.linear_prepack_fp16(weight, None)
    return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)


def _many(weight: torch.Tensor, dtype: torch.dtype) -> Callable:
    """The same for x of many rows."""
    if dtype == torch.float32:
        return lambda x: F.linear(x, weight)
    low = weight.to(dtype)

    def product(x: torch.Tensor) -> torch.Tensor:
        filled = F.pad(x.to(dtype), (0, 0, 0, -len(x) % ROWS))
        return F.linear(filled, low)[: len(x)].float()

    return product


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs = enumerate(zip(one, other))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _what_followed(ids: list[int], most: int) -> list[int]:
    """Up to `most` tokens after the latest earlier place where the last two ids stand."""
    for place in range(len(ids) - 1, 1, -1):
        if ids[place - 2 : place] == ids[-2:]:
            return ids[place : place + most]
    return []
