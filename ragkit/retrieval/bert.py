"""BERT's forward pass on a CPU: transformers' numbers, by products whose weights oneDNN has put in its order.

torch multiplies float32 by MKL, which on AMD's processors leaves half of AVX-512 unused; oneDNN takes a fifth
less time, on weights that it has put in order once, and adds bias, GELU and residual while the product is in
the cache. transformers' own forward makes three products of queries, keys and values, and passes over each
result again. In all, an eighth less time, most of what is left being the products.
"""

import platform
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional as F

KINDS = ("weight", "bias")
ROWS = 512  # tokens that weights are put in order for; other numbers work, a little slower
# oneDNN writes a program for each number of rows that it meets, and keeps up to 1,024 of a megabyte or two.
# So rows are filled up, few to a multiple of 16, and many to one of 64.
STEPS = ((128, 16), (ROWS, 32), (float("inf"), 64))


def supported(config, device: torch.device) -> bool:
    """Whether a model of this `config`, transformers', is one that `Bert` computes, here."""
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and device.type == "cpu"
        and (config.model_type, getattr(config, "hidden_act", None)) == ("bert", "gelu")
        and getattr(config, "position_embedding_type", None) in (None, "absolute")
        and not getattr(config, "is_decoder", False)
    )


class Bert:
    """A `BertModel` for inference, from its `config` and its `state_dict()`.

    `dtype`: of the products; sums, norms and residuals are float32. Weights are copied, so that what is
    trained later is not seen.
    """

    def __init__(self, config, state: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float32):
        def product(*names: str, then: str = "none") -> Callable:
            weight, bias = (torch.cat([state[f"{name}.{kind}"] for name in names]) for kind in KINDS)
            return _product(weight.to(dtype), bias.to(dtype), then)

        def norm(name: str) -> Callable:
            weight, bias = (state[f"{name}.LayerNorm.{kind}"].clone() for kind in KINDS)
            return lambda x: F.layer_norm(x, weight.shape, weight, bias, config.layer_norm_eps)

        self._words = state["embeddings.word_embeddings.weight"].clone()
        first_type = state["embeddings.token_type_embeddings.weight"][0]
        self._places = state["embeddings.position_embeddings.weight"] + first_type
        self._first_norm, self._heads, self._dtype = norm("embeddings"), config.num_attention_heads, dtype
        self._layers = []
        for layer in (f"encoder.layer.{n}" for n in range(config.num_hidden_layers)):
            attention, out = f"{layer}.attention.self", f"{layer}.attention.output"
            self._layers.append(
                (
                    product(*(f"{attention}.{part}" for part in ("query", "key", "value"))),
                    product(f"{out}.dense", then="add"),
                    norm(out),
                    product(f"{layer}.intermediate.dense", then="gelu"),
                    product(f"{layer}.output.dense", then="add"),
                    norm(f"{layer}.output"),
                )
            )

    @torch.inference_mode()
    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The last layer's states, (B, T, D), float32, of token ids and a mask, (B, T) each; 0 is padding."""
        rows, width = input_ids.shape
        count = rows * width
        x = torch.zeros(filled(count), self._words.shape[1])
        x[:count] = self._first_norm(self._words[input_ids] + self._places[:width]).flatten(0, 1)
        unseen = None
        if not attention_mask.all():
            unseen = torch.zeros(rows, 1, 1, width, dtype=self._dtype)
            unseen.masked_fill_(attention_mask[:, None, None] == 0, -torch.inf)
        for qkv, out, norm, up, down, last_norm in self._layers:
            q, k, v = qkv(x)[:count].view(rows, width, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=unseen)  # (B, head, T, size)
            told = torch.zeros_like(x, dtype=self._dtype)
            told[:count].view(rows, width, self._heads, -1).copy_(seen.transpose(1, 2))
            x = norm(out(told, x))
            x = last_norm(down(up(x), x))
        return x[:count].view(rows, width, -1)


def filled(rows: int) -> int:
    """To how many rows so many are filled up."""
    step = next(step for most, step in STEPS if rows <= most)
    return -(-rows // step) * step


def _product(weight: torch.Tensor, bias: torch.Tensor, then: str) -> Callable:
    """x ↦ x·Wᵀ + b; then GELU, or the sum with a second argument, in float32."""
    dtype, fused = weight.dtype, torch.ops.mkldnn._linear_pointwise
    weight = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
    if then == "add":
        if dtype == torch.float32:
            return lambda x, more: fused.binary(x, more, weight, bias, "add")
        return lambda x, more: fused(x.to(dtype), weight, bias, "none", [], "") + more
    return lambda x: fused(x.to(dtype), weight, bias, then, [], "none" if then == "gelu" else "")
