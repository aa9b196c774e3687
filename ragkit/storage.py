"""A folder of files that goes from one version to the next in one step, and in which damage shows."""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VersionedFolder:
    """Data files that carry their checksum in their name, and a manifest that names the present ones.

    The manifest is put in place last and in one step: whoever reads the folder, at any moment, gets the old
    version or the new one. `kind`: format and version, which the manifest repeats; `parts`: the data files'
    names without checksums; `keys`: what else a manifest must hold. `noun`, `maker` and `advice` are for its
    errors: what the folder holds, what makes one, and what to do about a damaged one.
    """

    path: Path
    manifest_name: str
    kind: dict
    parts: tuple[str, ...]
    keys: tuple[str, ...]
    noun: str
    maker: str
    advice: str

    def write(self, facts: dict, writers: dict[str, Callable[[Path], None]]) -> None:
        """A new version: each writer, by part, writes its file at the path that it is given."""
        self.path.mkdir(parents=True, exist_ok=True)
        exists = (self.path / self.manifest_name).exists()
        old = self.manifest()["files"] if exists else {}  # a damaged or foreign manifest is left alone
        files: dict[str, dict] = {}
        try:
            self._write_files(writers, files)
            with _Temporary(self.path / self.manifest_name) as temporary:
                manifest = self.kind | facts | {"files": files}
                temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
                _put(temporary, self.path / self.manifest_name)
        except BaseException:
            for name in files.keys() - old.keys():  # nothing names them
                (self.path / name).unlink(missing_ok=True)
            raise
        for path in self.path.iterdir():
            if path.name not in files and (path.name in old or self._left_over(path)):
                path.unlink(missing_ok=True)

    def _write_files(self, writers: dict[str, Callable[[Path], None]], files: dict[str, dict]) -> None:
        for part, writer in writers.items():
            stem, suffix = part.split(".")
            with _Temporary(self.path / part) as temporary:
                writer(temporary)
                digest = _sha256(temporary)
                name = f"{stem}-{digest[:12]}.{suffix}"
                files[name] = {"sha256": digest, "bytes": temporary.stat().st_size}
                _put(temporary, self.path / name)

    def manifest(self) -> dict:
        """The manifest. Raises FileNotFoundError where none is, ValueError for a damaged or foreign one."""
        path = self.path / self.manifest_name
        if not path.is_file():
            raise FileNotFoundError(
                f"no {self.noun} in {str(self.path)!r}: it has no {self.manifest_name} ({self.maker})"
            )
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            kind = {key: manifest.get(key) for key in self.kind}
            files = manifest.get("files", {})
            if kind == self.kind:
                stems = [
                    name.split("-")[0] for name, facts in files.items() if {"sha256", "bytes"} <= {*facts}
                ]
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); {self.advice}") from error
        if kind != self.kind:
            raise ValueError(
                f"{path} is not a {self.noun} that this ragkit reads: it says {kind}, not {self.kind}"
            )
        expected = sorted(part.split(".")[0] for part in self.parts)
        if sorted(stems) != expected or any("/" in name or "\\" in name for name in files):
            raise ValueError(f"{path} is damaged (its files are {files}); {self.advice}")
        if missing := [key for key in self.keys if key not in manifest]:
            raise ValueError(f"{path} is damaged (no {', '.join(missing)}); {self.advice}")
        return manifest

    def files(self, manifest: dict) -> dict[str, Path]:
        """Paths by stem, once sizes and checksums are what the manifest says. Raises ValueError if not."""
        return {
            name.split("-")[0]: self._checked(self.path / name, facts)
            for name, facts in manifest["files"].items()
        }

    def _checked(self, path: Path, facts: dict) -> Path:
        """`path`, once its size and checksum are what the manifest says."""
        if not path.is_file():
            raise ValueError(f"{path} is missing, though the manifest names it; {self.advice}")
        if (size := path.stat().st_size) != facts["bytes"]:
            raise ValueError(
                f"{path} has {size} bytes, not {facts['bytes']}: truncated or changed; {self.advice}"
            )
        if (found := _sha256(path)) != facts["sha256"]:
            raise ValueError(
                f"{path} is damaged: its sha256 is {found[:12]}…, not {facts['sha256'][:12]}…; {self.advice}"
            )
        return path

    def _left_over(self, path: Path) -> bool:
        """Whether a killed save left this file; one of the last hour may belong to a save under way."""
        data = "|".join("{}-[0-9a-f]{{12}}\\.{}".format(*part.split(".")) for part in self.parts)
        names = "|".join(re.escape(name) for name in (*self.parts, self.manifest_name))
        ours = re.fullmatch(rf"{data}|\.(?:{names})\.\d+\.tmp", path.name)
        return bool(ours) and time.time() - path.stat().st_mtime > 3600


class _Temporary:
    """A path beside the target, gone at the end whatever happens."""

    def __init__(self, target: Path):
        self.path = target.with_name(f".{target.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error) -> None:
        self.path.unlink(missing_ok=True)


def _put(temporary: Path, target: Path) -> None:
    """Move a finished file into place so that a crash of the machine leaves all of it or nothing."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
    sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    """The names in a folder are on disk when this returns."""
    if hasattr(os, "O_DIRECTORY"):  # not on Windows
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
