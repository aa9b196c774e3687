"""A generator on disk, as `Generator(folder)` loads it: whole or not at all."""

import json
import os
import shutil
from pathlib import Path

from ragkit.generation.generator import Generator
from ragkit.generation.reader import SETTINGS
from ragkit.retrieval.loading import without_bars

KIND = {"format": "ragkit-tuning", "version": 1}
FILE = "tuning.json"


def save_generator(generator: Generator, folder: str | Path, facts: dict) -> None:
    """Write what the generator answers by: a reader's adapter, or a model with its tokenizer; and `facts`.

    Weights are safetensors, all else is JSON. An earlier tuning in `folder` is replaced; any other folder
    with files in it is refused by FileExistsError.
    """
    folder = Path(folder).expanduser()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FILE).is_file():
        raise FileExistsError(f"{folder} holds other files than an earlier tuning; choose another folder")
    unfinished, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        unfinished.mkdir(parents=True)
        if generator.reader:
            generator.adapter.write(unfinished)
            settings = {
                "evidence_sentences": generator.sentences,
                "none_similarity": generator.none_similarity,
                "prior_scale": generator.prior_scale,
            }
            (unfinished / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        else:
            with without_bars():
                generator.model.save_pretrained(unfinished)
            generator.tokenizer.save_pretrained(unfinished)
        (unfinished / FILE).write_text(json.dumps(KIND | facts, indent=1) + "\n", encoding="utf-8")
        if folder.is_dir():
            os.replace(folder, old)
        os.replace(unfinished, folder)
    except BaseException:
        if old.is_dir() and not folder.exists():
            os.replace(old, folder)
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
