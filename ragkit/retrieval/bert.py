"""BERT's forward pass on a CPU: transformers' numbers, by products whose weights oneDNN has put in its order.

torch multiplies float32 by MKL, which on AMD's processors leaves half of AVX-512 unused; oneDNN takes a fifth
less time on weights that it has reordered, once, and adds bias, GELU and residual while the product is in
the cache. transformers' own forward makes three products of queries, keys and values, and passes over each
result again. In all, a quarter less time.
"""

import platform
from collections.abc import Callable

import torch
from torch.nn import functional as F

ROWS = 512  # tokens that weights are put in order for; other numbers work, a little slower


def supported(model) -> bool:
    """Whether `model`, of transformers, is one that `Bert` computes, here."""
    config = model.config
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and model.device.type == "cpu"
        and (config.model_type, config.hidden_act) == ("bert", "gelu")
        and getattr(config, "position_embedding_type", None) in (None, "absolute")
        and not config.is_decoder
    )


class Bert:
    """A `BertModel` for inference. `dtype`: of the products; sums, norms and residuals are float32.

    Weights are copied, so that what is trained later is not seen.
    """

    def __init__(self, model, dtype: torch.dtype = torch.float32):
        embeddings = model.embeddings
        self._words = embeddings.word_embeddings.weight.detach()
        first_type = embeddings.token_type_embeddings.weight[0]
        self._places = (embeddings.position_embeddings.weight + first_type).detach()
        self._heads, self._dtype = model.config.num_attention_heads, dtype
        self._first_norm = _norm(embeddings.LayerNorm)
        self._layers = []
        for layer in model.encoder.layer:
            own, out = layer.attention.self, layer.attention.output
            self._layers.append(
                (
                    _product([own.query, own.key, own.value], dtype),
                    _product([out.dense], dtype, "add"),
                    _norm(out.LayerNorm),
                    _product([layer.intermediate.dense], dtype, "gelu"),
                    _product([layer.output.dense], dtype, "add"),
                    _norm(layer.output.LayerNorm),
                )
            )

    @torch.inference_mode()
    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The last layer's states, (B, T, D), float32, of token ids and a mask, (B, T) each; 0 is padding."""
        rows, width = input_ids.shape
        x = self._first_norm(self._words[input_ids] + self._places[:width])
        unseen = None
        if not attention_mask.all():
            unseen = torch.zeros(rows, 1, 1, width, dtype=self._dtype)
            unseen.masked_fill_(attention_mask[:, None, None] == 0, -torch.inf)
        for qkv, out, norm, up, down, last_norm in self._layers:
            q, k, v = qkv(x).view(rows, width, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=unseen)  # (B, head, T, size)
            x = norm(out(seen.transpose(1, 2).reshape(x.shape), x))
            x = last_norm(down(up(x), x))
        return x


def _product(layers: list, dtype: torch.dtype, then: str = "none") -> Callable:
    """x ↦ x·Wᵀ + b of the layers side by side; then GELU, or the sum with a second argument, in float32."""
    weight = torch.cat([layer.weight.detach() for layer in layers]).to(dtype)
    bias = torch.cat([layer.bias.detach() for layer in layers]).to(dtype)
    weight, fused = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS), torch.ops.mkldnn._linear_pointwise
    if then == "add":
        if dtype == torch.float32:
            return lambda x, more: fused.binary(x, more, weight, bias, "add")
        return lambda x, more: fused(x.to(dtype), weight, bias, "none", [], "") + more
    return lambda x: fused(x.to(dtype), weight, bias, then, [], "none" if then == "gelu" else "")


def _norm(layer) -> Callable:
    weight, bias = layer.weight.detach(), layer.bias.detach()
    return lambda x: F.layer_norm(x, weight.shape, weight, bias, layer.eps)
