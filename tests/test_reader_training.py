"""What smollm2-reader is trained on, and how: every label is so in the text, and a stop costs nothing."""

import random
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoTokenizer, LlamaForCausalLM

from ragkit.generation.reader import Adapter, Merged
from ragkit.generation.reader_format import Format
from ragkit.generation.smollm2 import base_folder
from ragkit.retrieval.corpus import DATA
from tests.helpers import small_smollm2

sys.path.insert(0, str(DATA / "build"))
import train_reader
from reader_data import Claim, Example, Examples, Pool, in_own_words

SUBJECTS = ["bridge", "tower", "harbour", "station", "museum", "library", "theatre", "school"]
WORDS = "red old tall long small quiet famous wooden".split()


def pools(count: int, own: bool) -> list[Pool]:
    """Three sentences a passage, two passages a question; the right one names a year."""
    found = []
    for n in range(count):
        subject, other, year = SUBJECTS[n // 2 % 8], SUBJECTS[(n // 2 + 3) % 8], str(1800 + n // 2)
        home = [
            f"The {subject} was built in {year}.",
            f"It is {WORDS[n // 2 % 8]}.",
            f"Ada Moss paid for the {subject}.",
        ]
        away = [f"The {other} is far.", f"People like the {other}.", "Nobody knows why."]
        places = [(2 * (n // 2), i) for i in range(3)] + [(99, i) for i in range(3)]
        right, phrase = (2, "Ada Moss") if n % 2 else (0, year)
        asked = f"who paid for the {subject}?" if n % 2 else f"When was the {subject} built?"
        scores = [0.9, 0.2, 0.7, 0.5, 0.4, 0.1]
        found.append(
            Pool(asked, home + away, places, scores, right, [phrase], f"It was {phrase}." if own else None)
        )
    return found


@pytest.fixture(scope="module")
def examples():
    return Examples(pools(40, own=False), pools(12, own=True), None)


@pytest.fixture(scope="module")
def form():
    return Format(AutoTokenizer.from_pretrained(base_folder(progress=False)))


@pytest.fixture
def base(tmp_path):
    small_smollm2(layers=3).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_every_label_is_so_in_the_text(examples):
    kinds = {"one": 0, "two": 0, "none": 0}
    for number in range(600):
        example = examples.draw(number)
        assert 1 < len(example.sentences) <= 8
        kinds[["none", "one", "two"][len(example.claims)]] += 1
        for claim in example.claims:
            assert claim.phrase in example.sentences[claim.sentence]
    assert kinds["one"] > 300 and kinds["two"] > 5 and 50 < kinds["none"] < 250


def test_a_near_miss_does_not_hold_the_answer(examples):
    pool = examples.squad[0]
    for seed in range(300):
        example = examples._example(pool, examples.squad, 4, random.Random(seed))
        if not example.claims:
            assert not any("1800" in sentence for sentence in example.sentences)


def test_sentences_stand_in_reading_order(examples):
    both = 0
    for number in range(200):
        sentences = examples.draw(number).sentences
        built = [i for i, s in enumerate(sentences) if "was built in" in s]
        paid = [i for i, s in enumerate(sentences) if s.startswith("Ada Moss paid for")]
        if len(built) == len(paid) == 1:
            subject = sentences[paid[0]].removeprefix("Ada Moss paid for the ").rstrip(".")
            if subject in sentences[built[0]]:
                both += 1
                assert built < paid
    assert both > 20


def test_an_example_depends_on_its_number_alone(examples):
    again = Examples(pools(40, own=False), pools(12, own=True), None)
    assert [examples.draw(n) for n in (5, 90, 17)] == [again.draw(n) for n in (5, 90, 17)]
    assert examples.draw(5) != Examples(examples.squad, examples.own, None, seed=1).draw(5)


@pytest.mark.parametrize(
    "question, phrase, statement",
    [
        ("Who wrote Dracula?", "Bram Stoker", "Bram Stoker wrote Dracula."),
        ("What caused the flood?", "heavy rain", "Heavy rain caused the flood."),
        ("Who is Bram Stoker?", "a writer", None),
        ("What types of soil are there?", "two", None),
        ("When was it built?", "1932", None),
    ],
)
def test_a_question_for_the_subject_becomes_a_statement(question, phrase, statement):
    assert in_own_words(question, phrase) == statement


TWO = Example(
    "Who built it, and when?",
    ["Ada Moss built it.", "It was built in 1932."],
    [Claim(0, "Ada Moss", "Ada Moss did."), Claim(1, "1932", "That was in 1932.")],
)


def test_one_branch_does_not_see_the_other(base, form):
    """Both branches in one pass give what transformers gives for each by itself."""
    reader = train_reader.Reader(base, "cpu", torch.float32)
    row = next(
        row
        for seed in range(20)
        if len(set((row := train_reader.encode(TWO, form, random.Random(seed))).branch)) == 3
    )
    loss, _ = train_reader.loss_of(reader, [row])
    model, expected = LlamaForCausalLM.from_pretrained(base).float(), 0.0
    for branch in (1, 2):
        kept = [i for i, b in enumerate(row.branch) if b in (0, branch)]
        ids = torch.tensor([[row.ids[i] for i in kept]])
        weights = torch.tensor([row.weights[i] for i in kept])
        with torch.inference_mode():
            losses = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
        expected += float((losses * weights[1:]).sum())
    bias = torch.full((2,), -1.5)  # the second task begins with its bias alone
    expected += train_reader.TELL * float(F.binary_cross_entropy_with_logits(bias, torch.ones(2)))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_what_is_asked_and_what_is_answered(form):
    row = train_reader.encode(TWO, form, random.Random(3))
    branches = [
        form.tokenizer.decode([i for i, b in zip(row.ids, row.branch) if b == branch]) for branch in (1, 2)
    ]
    assert branches[0].endswith("a phrase.<|im_end|>\n<|im_start|>assistant\n[1] Ada Moss<|im_end|>")
    assert "[1] Ada Moss" in branches[1] and "\n[2] " in branches[1]
    none = train_reader.encode(Example("why?", ["A.", "B."]), form, random.Random(0))
    assert form.tokenizer.decode(none.ids).endswith("assistant\n[0]<|im_end|>")


def run(base, form, examples, work, steps, monkeypatch, save_every=3):
    torch.manual_seed(0)
    reader = train_reader.Reader(base, "cpu", torch.float32)
    work.mkdir(exist_ok=True)
    monkeypatch.setattr(train_reader, "TOKENS", 1200)
    monkeypatch.setattr(train_reader, "KEEP", save_every)
    settings = SimpleNamespace(work=work, rate=1e-2, steps=steps, seed=0)
    return reader, settings


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(base, form, examples, tmp_path, monkeypatch):
    whole, settings = run(base, form, examples, tmp_path / "whole", 8, monkeypatch)
    train_reader.train(whole, examples, form, settings)

    stopped, settings = run(base, form, examples, tmp_path / "stopped", 8, monkeypatch)
    saves = iter([False, True])

    def save_and_stop(*arguments):
        save(*arguments)
        if next(saves):
            raise KeyboardInterrupt

    save = train_reader.save
    monkeypatch.setattr(train_reader, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train_reader.train(stopped, examples, form, settings)
    monkeypatch.setattr(train_reader, "save", save)
    resumed, settings = run(base, form, examples, tmp_path / "stopped", 8, monkeypatch)
    train_reader.train(resumed, examples, form, settings)
    for name, tensor in whole.adapter.items():
        assert torch.equal(tensor, resumed.adapter[name]), name
        assert not torch.equal(tensor, stopped.adapter[name]) or "tell" in name, name


def test_what_is_exported_is_what_was_trained(base, form, examples, tmp_path, monkeypatch):
    """The adapter's file, added to the base, gives the trained model's states."""
    reader, settings = run(base, form, examples, tmp_path / "work", 4, monkeypatch)
    train_reader.train(reader, examples, form, settings)
    train_reader.export(reader, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    assert not any("layers.0." in name for name in tensors)  # the lowest third has none
    model = LlamaForCausalLM.from_pretrained(base).float()
    model.load_state_dict(dict(Merged(base, Adapter.read(tmp_path / "out"))), strict=False)
    ids = torch.tensor([train_reader.encode(TWO, form, random.Random(0)).ids])
    size = ids.shape[1]
    mask = torch.ones(1, size, size, dtype=torch.bool).tril()
    with torch.inference_mode():
        ours, _ = reader.states(ids, torch.arange(size)[None], mask)
        theirs = model.model(ids).last_hidden_state
    assert torch.allclose(ours, theirs, atol=0.03)  # B and A in bfloat16
