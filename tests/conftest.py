"""What several test files share: small models with random weights, a toy library."""

from functools import cache

import pytest

from ragkit.retrieval.corpus import DATA, Hit, Passage

PASSAGES = [
    Passage("dpo", "Beta controls how far DPO may move from the reference. A small β lets it move far. "
            "The loss needs no reward model, since log-ratios stand for rewards.", "DPO"),
    Passage("ipo", "IPO regresses the margin onto 1/(2τ). It doesn't saturate when labels are certain. "
            "Zürich's naïve readers know it as “squared loss” – 損失 🙂 in one line.", "IPO"),
    Passage("bm25", "BM25 counts shared words; k1 = 1.5 bounds how much a repeated word adds. "
            "Its other parameter, b = 0.75, discounts long passages.", "BM25"),
    Passage("milvus", "Milvus keeps vectors on a cluster. The same client opens a local file.", "Milvus"),
    Passage("faiss", "FAISS searches vectors in memory. IndexFlatIP is exact: it compares with all of them. "
            "HNSW cannot delete.", "FAISS"),
]  # fmt: skip
TEXTS = [text for p in PASSAGES for text in (p.title, p.text)] + [
    "Answer the question from the numbered passages below and from nothing else.",
    "user assistant system You are a helpful assistant. What does beta control in DPO?",
]

# The template of tiny-rag-lm, and those of two families on the Hub, as far as one turn needs them.
TINY = (DATA / "tiny-rag-lm" / "chat_template.jinja").read_text(encoding="utf-8")
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# How these families cut text into words before BPE.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "initializer_range": 0.3,
    "tie_word_embeddings": True,
}


def _byte_level_bpe(special: list[str], *, tiny: bool = False):
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if tiny:  # as data/build/train_tiny_lm.py makes it
        tokenizer.normalizer = normalizers.Prepend(" ")
        split = pre_tokenizers.Split(Regex(r" ?\p{N}"), "isolated")
    else:
        split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=tiny)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, words])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def _save(folder, tokenizer, template, model, *, plain: tuple[str, ...] = (), **settings):
    """A checkpoint that transformers loads. `plain`: added tokens that are not called special."""
    import torch
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **settings
    )
    wrapped.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    wrapped.chat_template = template
    wrapped.save_pretrained(folder)
    kind, config = model
    torch.manual_seed(0)
    config = config(vocab_size=len(wrapped), **SHAPE)
    config.pad_token_id, config.bos_token_id = wrapped.pad_token_id, wrapped.bos_token_id
    config.eos_token_id = wrapped.eos_token_id
    model = kind(config).half()
    if "<none>" in tokenizer.get_vocab():  # so that random weights don't always prefer to say nothing
        with torch.no_grad():
            model.get_input_embeddings().weight[wrapped.convert_tokens_to_ids("<none>")] = 0
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A model in the shape of tiny-rag-lm: its tokens, its template, random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    special = ["<pad>", "<bos>", "<eos>", "<q>", "<sentence>", "<phrase>", "<none>"]
    return _save(
        tmp_path_factory.mktemp("tiny"),
        _byte_level_bpe([*special, *(f"[{n}]" for n in range(1, 10))], tiny=True),
        TINY,
        (
            LlamaForCausalLM,
            lambda **shape: LlamaConfig(evidence_sentences=5, max_position_embeddings=512, **shape),
        ),
        pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", model_max_length=512,
    )  # fmt: skip


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return _save(
        tmp_path_factory.mktemp("qwen"),
        _byte_level_bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
        CHATML,
        (Qwen3ForCausalLM, lambda **shape: Qwen3Config(max_position_embeddings=1024, head_dim=8, **shape)),
        plain=("<think>", "</think>", "<tool_call>"),
        pad_token="<|endoftext|>", eos_token="<|im_end|>",
    )  # fmt: skip


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory):
    """With the settings for generating that such models have on the Hub: several ends, sampling, a limit."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    markers = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id"]
    folder = _save(
        tmp_path_factory.mktemp("llama"),
        _byte_level_bpe([f"<|{marker}|>" for marker in markers]),
        LLAMA3,
        (LlamaForCausalLM, lambda **shape: LlamaConfig(max_position_embeddings=1024, **shape)),
        bos_token="<|begin_of_text|>", eos_token="<|eot_id|>",
    )  # fmt: skip
    GenerationConfig(
        bos_token_id=0, eos_token_id=[1, 4], do_sample=True, temperature=0.6, top_p=0.9, top_k=20,
        repetition_penalty=1.3, max_length=300,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _between(tokenizer, template: str):
    """The same tokenizer, which puts special tokens around a text: "<s> $A </s>"."""
    from tokenizers.processors import TemplateProcessing

    marks = [(mark, tokenizer.token_to_id(mark)) for mark in template.split() if mark != "$A"]
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=marks)
    return tokenizer


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory):
    """Encoder-decoder; its tokenizer makes one space of white space, as T5's does."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace("\n", " ")
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
    )
    return _save(
        tmp_path_factory.mktemp("t5"),
        _between(tokenizer, "$A </s>"),
        None,
        (
            T5ForConditionalGeneration,
            lambda vocab_size, **_: T5Config(
                vocab_size=vocab_size, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                initializer_factor=3.0, decoder_start_token_id=0,
            ),
        ),
        pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=1024,
    )  # fmt: skip


@pytest.fixture(scope="session")
def bart_folder(tmp_path_factory):
    """Encoder-decoder; its decoder starts from </s> and opens a text by <s>."""
    from transformers import BartConfig, BartForConditionalGeneration

    sides = {f"{side}_{name}": size for side in ("encoder", "decoder")
             for name, size in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))}  # fmt: skip
    return _save(
        tmp_path_factory.mktemp("bart"),
        _between(_byte_level_bpe(["<s>", "<pad>", "</s>"]), "<s> $A </s>"),
        None,
        (
            BartForConditionalGeneration,
            lambda vocab_size, **_: BartConfig(
                vocab_size=vocab_size, d_model=32, max_position_embeddings=600, init_std=0.3,
                decoder_start_token_id=2, **sides,
            ),
        ),
        pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    """The default encoder's, without the model."""
    from ragkit.retrieval.default_encoder import default_tokenizer

    return default_tokenizer()


@pytest.fixture
def count(tokenizer):
    """The number of tokens that the encoder would see, its special tokens included."""
    return lambda text: len(tokenizer(text, verbose=False)["input_ids"])


@pytest.fixture(scope="session")
def encoder():
    from ragkit.retrieval.encoder import Encoder

    return Encoder()


@pytest.fixture(scope="session")
def tiny(tiny_folder, encoder):
    from ragkit.generation.generator import Generator

    return Generator(tiny_folder, encoder, device="cpu")


@pytest.fixture(scope="session")
def qwen(qwen_folder):
    from ragkit.generation.generator import Generator

    return Generator(qwen_folder, device="cpu")


@pytest.fixture(scope="session")
def llama(llama_folder):
    from ragkit.generation.generator import Generator

    return Generator(llama_folder, device="cpu")


@pytest.fixture
def small_reader(tmp_path, encoder, monkeypatch):
    """A reader in small: SmolLM2's tokens, random weights, an adapter on the upper of two layers."""
    import json

    import torch

    from ragkit.generation import generator
    from ragkit.generation.reader import Adapter
    from ragkit.generation.smollm2 import base_folder
    from tests.helpers import small_smollm2

    model, name = small_smollm2(layers=2), "base_model.model.model.layers.1.mlp.{}.weight"
    model.save_pretrained(tmp_path / "base")
    for file in base_folder(progress=False).glob("*token*"):
        (tmp_path / "base" / file.name).write_bytes(file.read_bytes())
    weights = {
        name.format("up_proj.lora_A"): torch.randn(3, 24),
        name.format("up_proj.lora_B"): torch.randn(32, 3) / 9,
        name.format("down_proj.lora_A"): torch.randn(3, 32),
        name.format("down_proj.lora_B"): torch.randn(24, 3) / 9,
    }
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 12, "target_modules": ["up_proj", "down_proj"]}
    (tmp_path / "reader").mkdir()
    Adapter(config, weights).write(tmp_path / "reader")
    settings = {"evidence_sentences": 6, "none_similarity": 0.2, "prior_scale": 8.0}
    (tmp_path / "reader" / "reader.json").write_text(json.dumps(settings))
    monkeypatch.setattr(generator, "base_folder", lambda: tmp_path / "base")
    return generator.Generator(tmp_path / "reader", encoder, device="cpu")


@pytest.fixture(scope="session")
def t5(t5_folder):
    from ragkit.generation.generator import Generator

    return Generator(t5_folder, device="cpu")


@pytest.fixture(scope="session")
def bart(bart_folder):
    from ragkit.generation.generator import Generator

    return Generator(bart_folder, device="cpu")


@pytest.fixture(params=["tiny", "qwen", "llama", "t5", "bart"])
def generator(request):
    """Each family in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def hits():
    return [Hit(passage, 1.0 - rank / 10, rank) for rank, passage in enumerate(PASSAGES, 1)]


@pytest.fixture(scope="session")
def loaded_once(encoder):
    """The models that ship, by name."""
    from ragkit.generation.generator import Generator

    return cache(lambda name: Generator(name, encoder, device="cpu"))


@pytest.fixture(scope="session")
def small_assistant():
    """What ships, but for the generator, which is the small one: the large one takes minutes."""
    from ragkit.assistant import Assistant
    from ragkit.generation.generator import SMALL

    return Assistant.load(generator=SMALL)


@pytest.fixture(scope="module")
def turns(request, small_assistant):
    """What is answered to each question in the module's ROWS."""
    questions = [row["question"] for row in request.module.ROWS]
    return {question: small_assistant.ask(question) for question in questions}


@pytest.fixture(scope="session")
def library_folder(tmp_path_factory, encoder):
    from ragkit.retrieval.library import Library

    folder = tmp_path_factory.mktemp("library")
    Library.build(PASSAGES, encoder).save(folder)
    return folder
