"""A Llama model's forward pass for one text at a time, on a CPU: few steps, each on all that it can take."""

import torch
from torch.nn import functional as F


def inference_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it (AVX512_BF16, AMX, a GPU), else float32."""
    if device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    return torch.float32


class Llama:
    """The weights of a transformers `LlamaForCausalLM`, those with one input joined to one matrix."""

    def __init__(self, model):
        config, inner = model.config, model.model
        self.heads, self.keys = config.num_attention_heads, config.num_key_value_heads
        self.size, self.eps = config.head_dim or config.hidden_size // self.heads, config.rms_norm_eps
        self.table, self.head = inner.embed_tokens.weight.detach(), model.lm_head.weight.detach()
        self.norm = inner.norm.weight.detach()
        device = self.table.device
        theta = config.rope_parameters["rope_theta"]
        self.frequencies = theta ** (-torch.arange(0, self.size, 2, device=device) / self.size)
        join = lambda *parts: torch.cat([part.weight.detach() for part in parts])  # noqa: E731
        self.layers = [
            (
                layer.input_layernorm.weight.detach(),
                join(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                layer.self_attn.o_proj.weight.detach(),
                layer.post_attention_layernorm.weight.detach(),
                join(layer.mlp.gate_proj, layer.mlp.up_proj),
                layer.mlp.down_proj.weight.detach(),
            )
            for layer in inner.layers
        ]

    def read(self, ids: list[int]) -> "State":
        return State(self, []).read(ids)


class State:
    """What has been read so far: keys and values, and the logits of what comes next, (V,) in float32."""

    def __init__(self, llama: Llama, cache: list):
        self.llama, self.cache, self.logits, self.length = llama, cache, None, 0

    @torch.inference_mode()
    def read(self, ids: list[int]) -> "State":
        llama, new = self.llama, len(ids)
        device = llama.table.device
        x = F.embedding(torch.tensor(ids, device=device), llama.table)  # (T, H)
        angles = torch.arange(self.length, self.length + new, device=device)[:, None] * llama.frequencies
        angles = torch.cat([angles, angles], -1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)  # (T, D)
        total, width = self.length + new, x.shape[-1]
        hidden = torch.ones(new, total, dtype=torch.bool, device=device).triu(self.length + 1)
        for number, (before, qkv, o, after, gate_up, down) in enumerate(llama.layers):
            h = F.linear(F.rms_norm(x, (width,), before, llama.eps), qkv)
            h = h.view(new, -1, llama.size).transpose(0, 1)  # (heads, T, D)
            q, k, v = h.split([llama.heads, llama.keys, llama.keys])
            half = llama.size // 2
            q, k = (z * cos + torch.cat([-z[..., half:], z[..., :half]], -1) * sin for z in (q, k))
            if self.length:
                k, v = (torch.cat([old, z], 1) for old, z in zip(self.cache[number], (k, v)))
                self.cache[number] = (k, v)
            else:
                self.cache.append((k, v))
            q = q.reshape(llama.keys, -1, llama.size)  # heads that share keys stand under each other
            scores = (q @ k.transpose(1, 2)).float() * llama.size**-0.5
            scores = scores.view(llama.keys, -1, new, total).masked_fill(hidden, -torch.inf)
            shares = scores.softmax(-1).to(x.dtype).view(llama.keys, -1, total)
            h = (shares @ v).view(llama.heads, new, llama.size).transpose(0, 1).reshape(new, -1)
            x = x + F.linear(h, o)
            gate, up = F.linear(F.rms_norm(x, (width,), after, llama.eps), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        self.length = total
        last = F.rms_norm(x[-1:], (width,), llama.norm, llama.eps)
        self.logits = F.linear(last, llama.head)[0].float()
        return self
