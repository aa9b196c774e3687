"""Folders with models: pickles are never read, code never runs, weights that lack, differ or are NaN are named."""

import json
import pickle
import shutil

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ragkit.generation.generator import Generator
from ragkit.reranking.answer_scorer import FEATURES, AnswerScorer
from ragkit.reranking.reranker import KIND, SAVED, Reranker
from ragkit.retrieval.corpus import Hit, Passage
from ragkit.retrieval.default_encoder import default_folder
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.storage import load_tensors, save_tensors
from tests.hostile import Door, anything, refused

WEIGHTS, GOOD = "model.safetensors", "Beta controls how far DPO may move from the reference."
HITS = [Hit(Passage("a", GOOD), 1.0, 1)]


class Trap:
    """Whoever unpickles this has made a folder."""

    def __init__(self, folder):
        self.folder = str(folder / "SPRUNG")

    def __reduce__(self):
        import os

        return os.mkdir, (self.folder,)


def copied(source, change, world):
    folder = world.folder / "model"
    shutil.copytree(source, folder)
    change(folder)
    return folder


def unsprung(world) -> None:
    assert not (world.folder / "model" / "SPRUNG").exists()


def a_generator(change, world):
    try:
        generator = Generator(str(copied(world.tiny_folder, change, world)), world.encoder, device="cpu")
        return generator.answer("What does beta control in DPO?", HITS)
    finally:
        unsprung(world)


def an_encoder(change, world):
    try:
        return Encoder(str(copied(default_folder(), change, world))).encode_query("x")
    finally:
        unsprung(world)


def weights(change):
    def changed(at) -> None:
        held = load_file(at / WEIGHTS)
        names = sorted(name for name in held if "layer" in name and "weight" in name)
        change(held, names[0])
        save_file(held, at / WEIGHTS, {"format": "pt"})

    return changed


def as_pickle(at) -> None:
    torch.save(load_file(at / WEIGHTS), at / "pytorch_model.bin")
    (at / WEIGHTS).unlink()


def trap(name: str, *, alone: bool):
    def change(at) -> None:
        if alone:
            (at / WEIGHTS).unlink()
        (at / name).write_bytes(pickle.dumps(Trap(at)))

    return change


def setting(**changes):
    def change(at) -> None:
        held = json.loads((at / "config.json").read_text())
        (at / "config.json").write_text(json.dumps(held | changes))

    return change


def text(name: str, data: str | None):
    def change(at) -> None:
        (at / name).unlink() if data is None else (at / name).write_text(data)

    return change


def without_tokens(at) -> None:
    for file in [*at.glob("*token*"), *at.glob("*vocab*")]:
        file.unlink()


def nan(held, name) -> None:
    held[name] = held[name] * torch.nan


FOREIGN = {"AutoModel": "x.M", "AutoModelForCausalLM": "x.M", "AutoConfig": "x.C"}


def models(kind: str) -> tuple:
    none = f"no {kind} '.*model'"
    return (
        ("weights in a pickle alone", as_pickle, refused(f"{none}.*safetensors", OSError)),
        ("a trap for weights", trap("pytorch_model.bin", alone=True), refused(none, OSError)),
        ("a trap beside the weights", trap("training_args.bin", alone=False), anything),
        ("a trap called safetensors", trap(WEIGHTS, alone=True), refused(none, OSError)),
        (
            "half of the weights",
            lambda at: (at / WEIGHTS).write_bytes((at / WEIGHTS).read_bytes()[:4000]),
            refused(none, OSError),
        ),
        (
            "a weight of another shape",
            weights(lambda held, name: held.update({name: torch.zeros(3, 3)})),
            refused(none, OSError),
        ),
        (
            "a weight too few",
            weights(lambda held, name: held.pop(name)),
            refused(f"{kind} .*its weights lack '.*take the whole model", OSError),
        ),
        ("NaN for a weight", weights(nan), refused(f"{kind} .*its weight '.*' holds NaN", OSError)),
        ("no config", text("config.json", None), refused(none, OSError)),
        ("half of a config", text("config.json", "{"), refused(none, OSError)),
        ("a list for a config", text("config.json", "[]"), refused(none, OSError)),
        ("code of its own", setting(auto_map=FOREIGN, model_type="foreign"), refused(none, OSError)),
        ("a size that is none", setting(num_hidden_layers="x"), refused(none, OSError)),
        ("sizes that don't fit", setting(hidden_size=7), refused(none, OSError)),
        ("no tokenizer", without_tokens, refused(f"(no )?{kind} '.*model'", OSError)),
    )


GENERATORS = (
    *models("generator"),
    ("a template that reaches out", text("chat_template.jinja", "{{ ''.__class__.__mro__ }}"), refused("chat template fails: .*__class__")),
    ("a template that drops the question", text("chat_template.jinja", "Hello"), refused("chat template leaves text out")),
    ("more sentences than numbers", setting(evidence_sentences=99), refused("reads 99 sentences but has no token")),
    ("a text for a number of sentences", setting(evidence_sentences="x"), refused("reads x sentences")),
    ("NaN for the score of none", setting(none_similarity=float("nan")), refused("none_similarity=nan in the model's settings: a finite")),
    ("a text for the prior's scale", setting(prior_scale="x"), refused("prior_scale='x' in the model's settings")),
)  # fmt: skip
ENCODERS = (
    *models("encoder"),
    ("a layer that is a function", text("modules.json", '[{"type": "os.system", "path": "x"}]'), refused("layers that ragkit does not apply: \\['system'\\]")),
    ("a layer outside", text("modules.json", '[{"type": "x.Pooling", "path": "../../../etc"}]'), refused("which is outside the model's folder", OSError)),
    ("an object for the layers", text("modules.json", '{"a": 1}'), refused("no encoder", OSError)),
)  # fmt: skip


def a_reader(change, world):
    """An adapter on SmolLM2's tokens, as `small_reader` makes it."""
    reader = world.small_reader
    at = world.folder / "reader"
    change(at)
    return Generator(at, reader.encoder, device="cpu").answer("What does beta control in DPO?", HITS)


def adapter(change):
    def changed(at) -> None:
        held = load_file(at / "adapter_model.safetensors")
        change(held, sorted(held)[0])
        save_file(held, at / "adapter_model.safetensors", {"format": "pt"})

    return changed


READERS = (
    ("as it is", lambda at: None, anything),
    ("NaN for a weight", adapter(nan), refused("no generator .*holds NaN", OSError)),
    ("half of a pair of weights", adapter(lambda held, name: held.pop(name)), refused("the other half is missing", OSError)),
    ("a weight of another shape", adapter(lambda held, name: held.update({name: torch.zeros(3, 5)})), refused("no generator", OSError)),
    ("a pickle for an adapter", text("adapter_model.safetensors", "\x80\x04."), refused("no generator", OSError)),
    ("no adapter", text("adapter_model.safetensors", None), refused("no generator", OSError)),
    ("more sentences than digits", text("reader.json", '{"evidence_sentences": 10}'), refused("evidence_sentences=10 in reader\\.json: from 1 to 9", OSError)),
    ("no settings", text("reader.json", "{}"), refused("evidence_sentences=None", OSError)),
    ("a rank of none", text("adapter_config.json", '{"lora_alpha": 1, "r": 0}'), refused("no generator", OSError)),
)  # fmt: skip


def names(given, world):
    make, name = given
    return Generator(name, world.encoder) if make == "generator" else Encoder(name)


NAMES = tuple(
    (f"{name!r} for a {kind}", (kind, name), refused(f"no {kind} {name!r}: it is neither a folder".replace("\\", "\\\\"), OSError))
    for kind in ("generator", "encoder")
    for name in ("../../x", "/nonexistent", "a\0b", "a b", "--help")
)  # fmt: skip


def a_reranker(change, world):
    at = world.folder / "reranker"
    world.fitted.save(at)
    facts, tensors = load_tensors(at, KIND, "")
    held = {name: value.copy() for name, value in tensors.items()}
    data = change(facts, held)
    at.write_bytes(data) if isinstance(data, bytes) else save_tensors(at, facts, {}, held)
    again = Reranker.load(at, world.words)
    return [hit.score for hit in again.rerank("lamp?", [Hit(Passage("a", "lamp"), 1.0, 1), *HITS])]


def tensor(name: str, change):
    def changed(_, held) -> None:
        held[name] = change(held[name])

    return changed


def fact(name: str, *value):
    def changed(facts, _) -> None:
        facts.pop(name)
        if value:
            facts[name] = value[0]

    return changed


def finite(scores) -> bool:
    return len(scores) == 2 and bool(np.isfinite(scores).all())


TRAIN = "train it again"
RERANKERS = (
    ("as it was", lambda facts, held: None, finite),
    ("a tensor too many", lambda facts, held: held.update(more=np.zeros(3)), finite),
    ("a pickle", lambda facts, held: pickle.dumps([1]), refused(f"is damaged .*{TRAIN}")),
    ("nothing", lambda facts, held: b"", refused(f"is damaged .*{TRAIN}")),
    ("a header without an end", lambda facts, held: b"\xff" * 100, refused(f"is damaged .*{TRAIN}")),
    ("of a later version", fact("version", 99), refused(f"it says .*'version': 99.*{TRAIN}")),
    ("of another format", fact("format", "x"), refused("of another kind")),
    ("of another encoder", fact("fingerprint", "x"), refused("trained with encoder 'words', and this is")),
    ("of other features", fact("features", ["x"]), refused("weighs other features")),
    *((f"NaN in {name}", tensor(name, lambda value: value * np.nan), refused(f"its {name} holds NaN; {TRAIN}"))
      for name in ("residual.weights", "residual.spread", "domain.mean", "domain.limit")),
    *((f"another shape of {name}", tensor(name, lambda value: np.zeros((3, 3, 3))), refused(f"is damaged \\(.*{TRAIN}"))
      for name in ("residual.weights", "residual.spread", "residual.basis", "domain.centre", "domain.limits")),
    *((f"no {name}", lambda facts, held, name=name: held.pop(name) is None, refused(f"is damaged \\(.*{TRAIN}"))
      for name in ("residual.weights", "domain.spread")),
    *((f"no {name}", fact(name), refused(f"it lacks '{name}'; {TRAIN}")) for name in (*SAVED, "fingerprint", "settings")),
    ("a capacity that leads away", fact("capacity", "../../x"), refused("capacity='../../x': one of features")),
    ("a text for a bound", fact("max_kl", "x"), refused("max_kl='x': a number of nats")),
    ("a text for the settings", fact("settings", "x"), refused(f"is damaged \\(.*{TRAIN}")),
)  # fmt: skip


def a_scorer(change, world):
    facts = {"encoder": "words", "fingerprint": world.words.fingerprint, "features": FEATURES, "controls": []}
    tensors = {name: np.ones(len(FEATURES)) for name in ("mean", "spread", "weights")}
    at = world.folder / "scorer"
    kind = {"format": "ragkit-answer-scorer", "version": 1}
    if change(facts, tensors) is None:
        save_tensors(at, kind, facts, tensors)
    return AnswerScorer.load(at, world.words)("why?", "because", HITS)


SCORERS = (
    ("as it was", lambda facts, held: None, lambda score: np.isfinite(score)),
    ("no file", lambda facts, held: True, refused("no scorer in .*AnswerScorer\\.save makes one", FileNotFoundError)),
    ("weights too few", lambda facts, held: held.update(weights=np.ones(3)), refused(f"its tensors are .*{TRAIN}")),
    ("no spread", lambda facts, held: held.pop("spread") is None or None, refused(f"its tensors are .*{TRAIN}")),
    ("NaN for weights", lambda facts, held: held.update(weights=np.full(len(FEATURES), np.nan)), refused("its weights holds NaN")),
    ("no fingerprint", lambda facts, held: facts.pop("fingerprint") and None, refused("it lacks 'fingerprint'")),
)  # fmt: skip

DOORS = (
    Door("a generator's folder", a_generator, GENERATORS),
    Door("an encoder's folder", an_encoder, ENCODERS),
    Door("a reader's folder", a_reader, READERS),
    Door("a model's name", names, NAMES),
    Door("a reranker's file", a_reranker, RERANKERS),
    Door("a scorer's file", a_scorer, SCORERS),
)
