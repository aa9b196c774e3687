"""How a transformers model is loaded, and what is checked of it."""

import json
import os
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import SimpleNamespace

# No code that comes with it, nothing pickled.
NO_CODE = {"trust_remote_code": False}
SAFE = NO_CODE | {"use_safetensors": True, "output_loading_info": True}
_ONE_AT_A_TIME = RLock()


@contextmanager
def loading(kind: str, name: str, default: str):
    """Around the loading of a transformers model: raises any failure as an OSError that says what to do."""
    try:
        yield
    except Exception as error:  # of many kinds, by what is missing, damaged or unknown
        raise OSError(
            f"no {kind} {name!r}: it is neither a folder with a transformers model nor a model "
            f"that the Hugging Face Hub gave us now. Off-line, use {default!r} or a folder. ({error})"
        ) from error


@contextmanager
def without_bars():
    """transformers shows no progress of its own inside (a bar for downloads stays); and one thread at a time
    is inside, and imports it there: where two do, one of them gets half a module."""
    with _ONE_AT_A_TIME:
        from transformers.utils import logging

        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            if shown:
                logging.enable_progress_bar()


def tokenizer_and_config(source: Path | str, local: bool, *, known: bool) -> tuple:
    """Of a model. `known`: the default encoder's, whose kind nobody has to look up: for that, AutoTokenizer
    and AutoConfig read through all models of transformers, for a third of a second."""
    if known:
        from transformers import PreTrainedTokenizerFast

        names = ["input_ids", "token_type_ids", "attention_mask"]
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            source, local_files_only=True, model_input_names=names
        )
        return tokenizer, SimpleNamespace(**sidecar(source, "config.json"))
    from transformers import AutoConfig, AutoTokenizer

    settings = {"local_files_only": local, **NO_CODE}
    return AutoTokenizer.from_pretrained(source, **settings), AutoConfig.from_pretrained(source, **settings)


def default_device() -> str:
    """A GPU where there is one; of processes launched together on a machine, each takes its own."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    local = os.environ.get("LOCAL_RANK")
    return "cuda" if local is None else f"cuda:{int(local) % torch.cuda.device_count()}"


def check_weights(model, told: dict, name: str) -> None:
    """Raises OSError for weights that transformers made up because the file lacks them, and for NaN.

    `told`: what `from_pretrained` says of it. BERT's pooler may be missing: nothing here looks at it.
    """
    again = "take the whole model again"
    if missing := sorted(key for key in told["missing_keys"] if not key.startswith("pooler.")):
        raise OSError(f"{name}: its weights lack {missing[0]!r} and {len(missing) - 1} others; {again}")
    for key, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise OSError(f"{name}: its weight {key!r} holds NaN or infinity; {again}")


def pooling_modes(config: dict) -> list[str]:
    """How a sentence-transformers model pools; newer ones name it, older ones have a switch for each way."""
    if named := config.get("pooling_mode"):
        return [named] if isinstance(named, str) else list(named)
    prefix = "pooling_mode_"
    modes = [key.removeprefix(prefix) for key, on in config.items() if key.startswith(prefix) and on]
    return [mode.removesuffix("_tokens").removesuffix("_token") for mode in modes] or ["mean"]


def sidecar(source: Path | str, name: str):
    """A small JSON file beside the weights, or None where the model has none. Raises ValueError for one that
    is elsewhere."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ValueError(f"modules.json names {name!r}, which is outside the model's folder")
    from transformers.utils import cached_file

    found = cached_file(
        str(source),
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return json.loads(Path(found).read_text(encoding="utf-8")) if found else None
