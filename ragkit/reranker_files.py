"""A trained reranker on disk: weights in safetensors, facts in a manifest that is put in place last."""

from pathlib import Path

import numpy as np

from ragkit.domain import Domain
from ragkit.features import NAMES
from ragkit.inputs import Inputs
from ragkit.linear_residual import LinearResidual
from ragkit.storage import VersionedFolder

_PART = "weights.safetensors"


def versions(folder: str | Path) -> VersionedFolder:
    kind = {"format": "ragkit-reranker", "version": 1}
    keys = ("encoder", "fingerprint", "residual", "capacity", "anchor", "max_kl", "seed", "settings")
    words = ("reranker", "Reranker.save makes one", "train it again")
    return VersionedFolder(Path(folder).expanduser(), "reranker.json", kind, (_PART,), keys, *words)


def save(folder: str | Path, facts: dict, tensors: dict) -> None:
    """Write it, whole or not at all. `tensors`: NumPy arrays by name."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    versions(folder).write(facts, {_PART: lambda path: save_file(arrays, path)})


def load(folder: str | Path) -> tuple[dict, dict[str, np.ndarray]]:
    """(facts, tensors). Raises FileNotFoundError where no reranker is, ValueError for a damaged one."""
    from safetensors.numpy import load_file

    found = versions(folder)
    while True:
        manifest = found.manifest()
        try:
            return manifest, load_file(found.files(manifest)["weights"])
        except (OSError, ValueError):
            if found.manifest() == manifest:
                raise
            # Else another process has saved a new version, and deleted this file, while we read.


def packed(residual, domain: Domain | None) -> tuple[dict | None, dict[str, np.ndarray]]:
    """What kind of residual it is, as facts, and the tensors of both."""
    if residual is None:
        return None, {"none": np.zeros(0, dtype=np.float32)}
    ours = {f"domain.{name}": getattr(domain, name) for name in ("mean", "between", "within")}
    ours["domain.limit"] = np.array([domain.limit])
    facts = {"features": list(NAMES)}
    if isinstance(residual, LinearResidual):
        inputs = residual.inputs
        ours |= {name: getattr(inputs, name) for name in ("spread", "centre", "basis")}
        ours |= {"weights": residual.weights, "first": np.array([residual.first])}
        return facts | {"kind": "linear", "capacity": inputs.capacity}, ours
    theirs = {f"cross.{name}": value.numpy() for name, value in residual.tensors().items()}
    return facts | {"kind": "cross-encoder"}, ours | theirs


def unpacked(facts: dict | None, tensors: dict[str, np.ndarray], encoder):
    """(residual, domain). Raises ValueError where another version's features were weighed."""
    if facts is None:
        return None, None
    if facts["features"] != list(NAMES):
        raise ValueError("another version of ragkit saved this reranker, with other features: train it again")
    ours = (tensors[f"domain.{name}"] for name in ("mean", "between", "within"))
    domain = Domain(*ours, float(tensors["domain.limit"][0]))
    if facts["kind"] == "cross-encoder":
        import torch

        from ragkit.cross_residual import CrossResidual

        named = {name: value for name, value in tensors.items() if name.startswith("cross.")}
        theirs = {name.removeprefix("cross."): torch.from_numpy(value) for name, value in named.items()}
        return CrossResidual.from_tensors(encoder, theirs), domain
    inputs = Inputs(facts["capacity"], tensors["spread"], tensors["centre"], tensors["basis"])
    return LinearResidual(inputs, tensors["weights"], float(tensors["first"][0])), domain
