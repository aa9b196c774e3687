"""What tiny-rag-lm is trained on: every label that the data claims must be so in the text."""

import gzip
import json
import random
import sys
from collections import Counter

import pytest
import torch

from ragkit.generation.generator import Generator
from ragkit.retrieval.corpus import DATA, read_jsonl
from tests.helpers import FakeEncoder, hits

sys.path.insert(0, str(DATA / "build"))

import train_tiny_lm
from pseudo_questions import KINDS, STOP, disturb, easy_question, pseudo_question, rename
from tiny_lm_data import (
    HELD_OUT,
    NaturalQuestions,
    PseudoQuestions,
    Question,
    clean,
    load_own,
    load_prose,
    load_squad,
    read_squad,
    topics_of,
)
from train_tiny_lm import (
    CITE,
    NONE_SIMILARITY,
    PRIOR_SCALE,
    SPECIAL,
    batches,
    encode_examples,
    main,
    train_tokenizer,
)

SENTENCES = [
    "In 1932 the bridge over the bay was opened by Lady Ashcroft of Penrith.",
    "Its arch spans 503 metres, because the ships below needed room to turn.",
    "Eight lanes of traffic and a railway share the deck between two stone towers.",
    "A toll of 35 percent above the usual fare was paid by using tokens of brass.",
    "The engineers tested the steel at Middlesbrough before it was shipped in March 1928.",
    "Painting the bridge takes twelve years, and then the painters begin again.",
]
NEAR = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
DOCUMENTS = [[SENTENCES[:3], SENTENCES[3:]], [SENTENCES[::-1]]]


class Whole(FakeEncoder):
    """FakeEncoder with the one call that the loaders make."""

    def encode(self, texts, *, progress=True):
        return self.encode_passages(texts)


def squad(folder, paragraphs: int = 25, first: int = 10):
    """A file in SQuAD format; paragraph n answers "Who is person n?" in its second sentence."""
    rows = []
    for n in range(paragraphs):
        context = f"This is paragraph {n}.  It tells\nof Person{n} Smith, who sings. That was {n}."
        name = f"Person{n} Smith"
        answer = {"text": name, "answer_start": context.index(name)}
        rows.append({"context": context, "qas": [{"question": f"Who is person {n}?", "answers": [answer]}]})
    data = [{"title": "one", "paragraphs": rows[:first]}, {"title": "two", "paragraphs": rows[first:]}]
    with gzip.open(folder / "questions.json.gz", "wt", encoding="utf-8") as file:
        json.dump({"data": data}, file)
    return folder


@pytest.mark.parametrize("make", [easy_question, pseudo_question])
def test_a_pseudo_questions_phrase_lies_in_its_sentence(make):
    rng = random.Random(0)
    for _ in range(300):
        sentence = rng.choice(SENTENCES)
        question, (start, end) = make(sentence, rng)
        assert question.strip("? ")
        assert 0 <= start < end <= len(sentence)
        assert sentence[start:end] == sentence[start:end].strip()


def test_a_pseudo_question_does_not_give_its_answer_away():
    rng = random.Random(1)
    for _ in range(300):
        sentence = rng.choice(SENTENCES)
        question, (start, end) = pseudo_question(sentence, rng)
        phrase = [word.strip(".,").lower() for word in sentence[start:end].split()]
        rest = (sentence[:start] + sentence[end:]).lower()
        own = [
            word for word in phrase if word not in STOP | {"percent"} and word not in rest and len(word) > 3
        ]
        assert not set(own) & set(question.lower().strip("?").split()), (question, sentence[start:end])


@pytest.mark.parametrize(
    "sentence, answer, asked",
    [
        ("The bridge was opened in 1932 by a queen", "1932", "when"),
        ("They paid 35 percent more than usual", "35 percent", "what percentage"),
        ("The deck carries eight lanes of traffic", "eight", "how many"),
        ("It is high because the ships below need room", "because the ships below need room", "why"),
        ("It was tested at Middlesbrough in winter", "Middlesbrough", "where"),
        ("The ribbon was cut by Lady Ashcroft herself", "Lady Ashcroft", "who"),
    ],
)
def test_an_answers_kind_gives_the_question_word(sentence, answer, asked):
    found = [words for kind, words in KINDS if answer in [match[1] for match in kind.finditer(sentence)]]
    assert any(asked in words for words in found)


def test_renaming_replaces_a_name_by_the_same_one_everywhere():
    rng = random.Random(2)
    for _ in range(50):
        texts = ["Who did Ashcroft meet in 1932?", "In 1932 old Ashcroft met Penrith.", "Then Penrith left."]
        question, first, second = rename(texts, rng)
        assert len(question.split()) == 6 and len(first.split()) == 6
        assert question.split()[2] == first.split()[3]  # Ashcroft
        assert question.split()[5].rstrip("?") == first.split()[1]  # 1932
        assert first.split()[1].isdigit() and len(first.split()[1]) == 4
        assert first.split()[5].rstrip(".") == second.split()[1]  # Penrith


def test_disturbing_changes_words_and_keeps_their_number():
    rng = random.Random(3)
    for sentence in SENTENCES:
        assert len(disturb(sentence, rng, 0.8).split()) == len(sentence.split())
    assert any(disturb(sentence, rng, 0.8) != sentence for sentence in SENTENCES)


def test_examples_from_prose_hold_their_phrase_and_sometimes_no_answer():
    rng = random.Random(4)
    source = PseudoQuestions(DOCUMENTS, [[SENTENCES]])
    kinds = Counter()
    for _ in range(400):
        example = source.sample(rng, rng.randint(1, 5))
        kinds[example.right is None] += 1
        if example.right is not None:
            start, end = example.phrase
            assert 0 <= start < end <= len(example.sentences[example.right])
    assert 10 < kinds[True] < 80


def test_a_natural_example_names_the_sentence_that_holds_its_phrase():
    """Through shuffling, renaming and taking away, the label stays with the sentence."""
    rng = random.Random(5)
    known = Question("Who opened it in 1932?", SENTENCES, NEAR, 0, [(51, 70)])
    assert SENTENCES[0][51:70] == "Ashcroft of Penrith"
    source = NaturalQuestions([known], ["A stranger's sentence."] * 20)
    seen = Counter()
    for _ in range(500):
        example = source.sample(rng)
        bridge = [i for i, s in enumerate(example.sentences) if "the bridge over the bay was opened" in s]
        seen[example.right is None] += 1
        if example.right is None:
            assert not bridge
        else:
            assert bridge == [example.right]
            sentence = example.sentences[example.right]
            start, end = example.phrase
            assert sentence[:start].split()[-2] == "by" and sentence[end:] == "."
            assert example.similarities[example.right] == 0.9
            assert sentence[start:end].split()[1] == "of"
        assert len(example.similarities) == len(example.sentences)
    assert 40 < seen[True] < 160


def test_a_question_without_an_answer_stays_one():
    source = NaturalQuestions([Question("Who painted it?", SENTENCES, NEAR, None, [])], ["Strange."] * 20)
    rng = random.Random(6)
    assert all(source.sample(rng).right is None for _ in range(50))


def test_held_out_paragraphs_are_trained_on_nowhere(tmp_path):
    folder = squad(tmp_path)
    held = {p.questions[0][0] for p in read_squad(folder, held_out=True)}
    assert held == {"Who is person 9?", "Who is person 19?"} and HELD_OUT == 10
    questions, articles = load_squad(folder, Whole())
    everything = json.dumps([[q.text, q.sentences] for q in questions]) + json.dumps(articles)
    assert len(questions) == 23
    assert "Person9 " not in everything and "Person19 " not in everything
    assert "Person8 " in everything


def test_a_question_in_squad_format_names_its_sentence_and_phrase(tmp_path):
    for question in load_squad(squad(tmp_path), Whole())[0]:
        number = question.text.split()[-1].rstrip("?")
        sentence = question.sentences[question.right]
        assert [sentence[a:b] for a, b in question.phrases] == [f"Person{number} Smith"]
        assert len(question.sentences) in (6, 9)  # its paragraph's and one or two others'


def test_a_folder_without_questions_or_prose_says_so(tmp_path):
    with pytest.raises(SystemExit, match="SQuAD"):
        read_squad(tmp_path)
    with pytest.raises(SystemExit, match="prose"):
        load_prose(tmp_path)


def test_markdown_is_cleaned_to_sentences():
    text = "# Title\n\nSee [the guide](http://x.y) for **all** of the many details here. Short one.\n\n"
    text += "```python\nx = 1\n```\n\n- a list item that is not prose at all."
    assert clean(text) == [["See the guide for all of the many details here."]]


def test_the_three_parts_of_the_topics_are_apart():
    queries = [row for _, row in read_jsonl(DATA / "queries.jsonl")]
    test = {q["metadata"].get("topic") for q in queries if q["metadata"]["split"] == "test"} - {None}
    train, dev = topics_of(queries, "train"), topics_of(queries, "dev")
    assert len(dev) >= 10 and len(train) > 4 * len(dev)
    assert not train & dev and not (train | dev) & test


def test_own_questions_are_those_on_training_topics():
    asked = {row["_id"]: row for _, row in read_jsonl(DATA / "queries.jsonl")}
    queries = {row["text"]: row["metadata"] for row in asked.values()}
    known = topics_of([{"metadata": about} for about in queries.values()], "train")
    answers = {asked[row["query_id"]]["text"]: row for _, row in read_jsonl(DATA / "answers.jsonl")}
    own = load_own(DATA, Whole())
    for question in own:
        assert queries[question.text].get("topic", "") in known
        if question.right is None:
            assert not queries[question.text]["answerable"]
        else:
            support, answer = question.sentences[question.right], answers[question.text]
            assert support == answer["support"]
            assert [support[a:b] for a, b in question.phrases] == [answer["key"]]
    assert {question.right is None for question in own} == {True, False}


def test_rows_weigh_the_citation_and_copy_the_sentence():
    tokenizer = train_tokenizer(SENTENCES)
    known = Question("Who opened it?", SENTENCES, NEAR, 0, [(50, 70)])
    source = NaturalQuestions([known], ["Strange [1]."] * 9)
    rng = random.Random(7)
    examples = [source.sample(rng) for _ in range(60)]
    styles = ["phrase" if e.phrase and i % 2 else "sentence" for i, e in enumerate(examples)]
    rows = encode_examples(tokenizer, examples, styles, rng, short=0.0)
    assert len(rows) == len(examples)
    for example, style, row in zip(examples, styles, rows):
        at = row.weights.index(CITE)
        answer = row.ids[at:]
        assert len(row.ids) == len(row.weights) and row.ids[at - 1] == tokenizer.token_to_id(f"<{style}>")
        assert answer[-1] == tokenizer.token_to_id("<eos>")
        assert len(row.ends) == len(example.sentences)
        assert row.prior[tokenizer.token_to_id("<none>")] == PRIOR_SCALE * NONE_SIMILARITY
        if example.right is None:
            assert answer[0] == tokenizer.token_to_id("<none>")
            continue
        assert answer[0] == tokenizer.token_to_id(f"[{example.right + 1}]")
        assert row.prior[answer[0]] == PRIOR_SCALE * 0.9 and len(row.prior) == len(example.sentences) + 1
        wanted = example.sentences[example.right]
        wanted = wanted[slice(*example.phrase)] if style == "phrase" else wanted
        assert wanted in tokenizer.decode(answer)
        # The token at a sentence's end is followed by the next number, or by the question again.
        after = {row.ids[end + 1] for end in row.ends}
        assert after <= {tokenizer.token_to_id(t) for t in SPECIAL}


def test_batches_hold_every_row_within_the_budget():
    tokenizer = train_tokenizer(SENTENCES)
    rng = random.Random(8)
    examples = [PseudoQuestions(DOCUMENTS).sample(rng, rng.randint(1, 4)) for _ in range(100)]
    rows = encode_examples(tokenizer, examples, ["sentence"] * 100, rng, 0.0)
    found = batches(list(rows), rng, 2000)
    assert sorted(map(id, rows)) == sorted(id(row) for batch in found for row in batch)
    assert all(len(b) == 1 or len(b) * max(len(row.ids) for row in b) <= 2000 for b in found)


@pytest.fixture
def small_batches(monkeypatch, encoder):
    """A quarter of the tokens in a batch, on two threads (where sums could come out in another order)."""
    monkeypatch.setattr(train_tiny_lm, "TOKENS_PER_BATCH", 1024)
    monkeypatch.setattr(train_tiny_lm, "Encoder", lambda: encoder)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("level", [1, 3, 5])
def test_the_script_trains_on_any_folders_and_gives_the_same_weights_again(tmp_path, level, encoder, capsys):
    (tmp_path / "prose").mkdir()
    text = "\n\n".join(" ".join(SENTENCES) for _ in range(3))
    (tmp_path / "prose" / "bridge.jsonl").write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    settings = ["--text", str(tmp_path / "prose"), "--questions", str(squad(tmp_path)), "--device", "cpu"]
    settings += ["--steps", "3", "--level", str(level)]
    for name in ("one", "two"):
        main([*settings, "--out", str(tmp_path / name)])
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    assert "done: 3 steps" in capsys.readouterr().out
    generator = Generator(tmp_path / "one", encoder)
    assert generator.sentences == 5
    assert generator.answer("Who is person 3?", hits("This is Person3 Smith. That was 3.")).prompt
