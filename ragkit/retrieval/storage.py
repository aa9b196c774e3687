"""Files that are there whole or not at all, and in which damage shows."""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

MANIFEST, KIND = "library.json", {"format": "ragkit-library", "version": 1}
VECTORS, PASSAGES = ("vectors.faiss", "passages.jsonl")
SENTENCES = "sentences.npy"  # where they are stored
_OURS = re.compile(
    r"(?:vectors-[0-9a-f]{12}\.faiss|passages-[0-9a-f]{12}\.jsonl|sentences-[0-9a-f]{12}\.npy)"
    r"|\.(?:vectors\.faiss|passages\.jsonl|sentences\.npy|library\.json)\.\d+\.tmp"
)
_KEYS = ("encoder", "fingerprint", "dimension")
_ADVICE = "build the library again"


class LibraryFolder:
    """A folder with a library, which goes from one version to the next in one step.

    Its data files carry their checksum in their name; a manifest, put in place last, names the
    present ones. So whoever reads the folder, at any moment, gets the old version or the new one.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()

    def write(self, facts: dict, writers: dict[str, Callable[[Path], None]]) -> None:
        """A new version: each writer, by part, writes its file at the path that it is given."""
        self.path.mkdir(parents=True, exist_ok=True)
        exists = (self.path / MANIFEST).exists()
        old = self.manifest()["files"] if exists else {}  # a damaged or foreign manifest is left alone
        files: dict[str, dict] = {}
        try:
            for part, writer in writers.items():
                with temporary(self.path / part) as unfinished:
                    writer(unfinished)
                    digest = file_sha256(unfinished)
                    name = f"-{digest[:12]}.".join(part.split("."))
                    files[name] = {"sha256": digest, "bytes": unfinished.stat().st_size}
                    put(unfinished, self.path / name)
            with temporary(self.path / MANIFEST) as unfinished:
                manifest = KIND | facts | {"files": files}
                unfinished.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
                put(unfinished, self.path / MANIFEST)
        except BaseException:
            for name in files.keys() - old.keys():  # nothing names them
                (self.path / name).unlink(missing_ok=True)
            raise
        for path in self.path.iterdir():
            if path.name not in files and (path.name in old or _left_over(path)):
                path.unlink(missing_ok=True)

    def strangers(self) -> list[str]:
        """What is in the folder, if no library is, and none left it there; hidden names don't count."""
        if not self.path.is_dir() or (self.path / MANIFEST).exists():
            return []
        names = sorted(path.name for path in self.path.iterdir())
        return [name for name in names if not name.startswith(".") and not _OURS.fullmatch(name)]

    def manifest(self) -> dict:
        """The manifest. Raises FileNotFoundError where none is, ValueError for a damaged or foreign one."""
        path = self.path / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(
                f"no library in {str(self.path)!r}: it has no {MANIFEST} (python -m ragkit index makes one)"
            )
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(manifest, dict):
                raise ValueError("not a JSON object")
            kind = {key: manifest.get(key) for key in KIND}
            files = manifest.get("files", {}) if kind == KIND else {}
            told = files.values() if isinstance(files, dict) else [files]
            if not all(isinstance(facts, dict) for facts in told):
                raise ValueError(f"its files are {files}")
            whole = {name for name, facts in files.items() if isinstance(facts.get("sha256"), str)}
            stems = [name.split("-")[0] for name in whole if "bytes" in files[name]]
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged ({error}); {_ADVICE}") from error
        if kind != KIND:
            raise ValueError(f"{path} is not a library that this ragkit reads: it says {kind}, not {KIND}")
        stored = ["sentences"] if manifest.get("sentences") else []
        if sorted(stems) != ["passages", *stored, "vectors"] or any(
            "/" in name or "\\" in name for name in files
        ):
            raise ValueError(f"{path} is damaged (its files are {files}); {_ADVICE}")
        if missing := [key for key in _KEYS if manifest.get(key) is None]:
            raise ValueError(f"{path} is damaged (no {', '.join(missing)}); {_ADVICE}")
        return manifest

    def files(self, manifest: dict) -> dict[str, Path]:
        """Paths by stem, once sizes and checksums are what the manifest says. Raises ValueError if not."""
        return {
            name.split("-")[0]: _checked(self.path / name, facts) for name, facts in manifest["files"].items()
        }


def save_tensors(path: Path, kind: dict, facts: dict, tensors: dict[str, np.ndarray]) -> None:
    """One safetensors file, whole or not at all. `kind`, `facts` and a checksum of all stand in its header.

    `kind`: format and version, by these names; `facts` are what JSON can hold.
    """
    from safetensors.numpy import save

    tensors = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    header = kind | facts
    header = json.dumps(header | {"sha256": digest(header, tensors)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary(path) as unfinished:
        unfinished.write_bytes(save(tensors, {"ragkit": header}))
        put(unfinished, path)


def load_tensors(path: Path, kind: dict, advice: str) -> tuple[dict, dict[str, np.ndarray]]:
    """(facts, tensors) of `save_tensors`. Raises ValueError where they are damaged, or of another kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {}).get("ragkit", "{}"))
            found = {key: header.get(key) for key in kind}
            tensors = {name: file.get_tensor(name) for name in file.keys()} if found == kind else {}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); {advice}") from error
    if found != kind:
        raise ValueError(
            f"{path} is of another kind: it says {found}, and this ragkit reads {kind}; {advice}"
        )
    if header.pop("sha256", None) != digest(header, tensors):
        raise ValueError(f"{path} is damaged: its sha256 is another than its header says; {advice}")
    if bad := [name for name, value in tensors.items() if value.dtype.kind == "f" and np.isnan(value).any()]:
        raise ValueError(f"{path} is damaged: its {bad[0]} holds NaN; {advice}")
    return header, tensors


def digest(facts: dict, tensors: dict[str, np.ndarray]) -> str:
    """A sha256 of facts and tensors."""
    sha256 = hashlib.sha256(json.dumps(facts).encode())
    for name, value in sorted(tensors.items()):
        sha256.update(f"\n{name} {value.dtype} {value.shape} ".encode() + value.tobytes())
    return sha256.hexdigest()


def file_sha256(path: Path) -> str:
    """Of what is in a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def temporary(target: Path) -> Iterator[Path]:
    """A path beside the target, gone at the end whatever happens."""
    path = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def put(unfinished: Path, target: Path) -> None:
    """Move a finished file into place so that a crash of the machine leaves all of it or nothing."""
    with open(unfinished, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, target)
    sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    """The names in a folder are on disk when this returns."""
    if hasattr(os, "O_DIRECTORY"):  # not on Windows
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _checked(path: Path, facts: dict) -> Path:
    """`path`, once its size and checksum are what the manifest says."""
    if not path.is_file():
        raise ValueError(f"{path} is missing, though the manifest names it; {_ADVICE}")
    if (size := path.stat().st_size) != facts["bytes"]:
        raise ValueError(f"{path} has {size} bytes, not {facts['bytes']}: truncated or changed; {_ADVICE}")
    if (sha256 := file_sha256(path)) != facts["sha256"]:
        raise ValueError(
            f"{path} is damaged: its sha256 is {sha256[:12]}…, not {facts['sha256'][:12]}…; {_ADVICE}"
        )
    return path


def _left_over(path: Path) -> bool:
    """Whether a killed save left this file; one of the last hour may belong to a save under way."""
    return bool(_OURS.fullmatch(path.name)) and time.time() - path.stat().st_mtime > 3600
