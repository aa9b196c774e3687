"""Train tiny-rag-lm, the small language model that reads a few sentences and quotes the one that answers.

    python data/build/train_tiny_lm.py --text FOLDER --questions FOLDER --own data --minutes 100 \
        --out data/tiny-rag-lm
    python data/build/calibrate.py --declined 0.1

`--text` holds JSON lines with a text field, `--questions` holds files in SQuAD format, `--own` mixes in this
repo's questions on training topics; nothing is downloaded. `--init FOLDER --level 5` goes on from weights
that are there.
"""

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tiny_lm_data import Example, NaturalQuestions, PseudoQuestions, load_own, load_prose, load_squad
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch.nn import functional as F

from ragkit.retrieval.corpus import DATA
from ragkit.retrieval.encoder import Encoder

VOCABULARY = 6000
NUMBERS = [f"[{i}]" for i in range(1, 10)]
SPECIAL = ["<pad>", "<bos>", "<eos>", "<q>", "<sentence>", "<phrase>", "<none>", *NUMBERS]
MAX_TOKENS = 384
TOKENS_PER_BATCH = 4096
PRIOR_SCALE = (
    8.0  # of the sentence's cosine alone; `grounding.PRIOR_SCALE` is that of a score with its context
)
NONE_SIMILARITY = 0.5  # of "none of them", while training; what is shipped is calibrated
CITE = 15.0  # the citation is one token among thirty, and the hard one
FULL = 5  # the curriculum's last level: up to six sentences, and natural questions
LAYERS, HIDDEN, HEADS, FEED_FORWARD = 4, 256, 8, 672  # 4.65 million parameters
COPIES, MATCHES = 1.2, 0.75  # a level is left below this cross-entropy (nats), above this share of right ones
ATTENTION = "eager"  # at this size, in bfloat16 on two cores, half as fast again as the fused kernel
# The question stands before the sentences, so that each is read in its light, and again after them.
TEMPLATE = DATA / "tiny-rag-lm" / "chat_template.jinja"


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE. Every text gets a leading space, so that a word is the same token wherever it stands;
    digits stand alone, so that a number never seen is still made of tokens often seen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    digits = pre_tokenizers.Split(Regex(r" ?\p{N}"), "isolated")
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@dataclass
class Row:
    """One sequence: token ids, the weight of each as a target, where its sentences end, which one answers.

    `prior`: what the encoder adds to the log-probability of each citation, by token.
    """

    ids: list[int]
    weights: list[float]
    ends: list[int]
    right: int | None
    prior: dict[int, float]


def encode_examples(
    tokenizer: Tokenizer, examples: list[Example], styles: list[str], rng: random.Random, short: float
) -> list[Row]:
    """Weights are 1 on the answer, CITE on its citation, 0.15 on a fifth of the other tokens.

    `short` is the share of answers that are cut after their first words.
    """
    tokenizer.encode_special_tokens = True  # a text that contains "[1]" stays text
    texts = [text for example in examples for text in (example.question, *example.sentences)]
    encoded = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
    token = tokenizer.token_to_id
    rows = []
    for example, style in zip(examples, styles):
        question = next(encoded).ids
        sentences = [next(encoded) for _ in example.sentences]
        ids, ends = [token("<bos>"), token("<q>"), *question], []
        for number, sentence in zip(NUMBERS, sentences):
            ids += [token(number), *sentence.ids]
            ends.append(len(ids) - 1)
        ids += [token("<q>"), *question, token(f"<{style}>")]
        if len(ids) > MAX_TOKENS:
            continue
        weights = [0.15 if rng.random() < 0.2 else 0.0 for _ in ids]
        if example.right is None:
            answer = [token("<none>")]
        else:
            chosen = sentences[example.right]
            span = chosen.ids
            if style == "phrase":  # the tokens of the sentence that lie on the phrase
                first, last = example.phrase
                span = [i for i, (a, b) in zip(chosen.ids, chosen.offsets) if b > first and a < last]
            answer = [token(NUMBERS[example.right]), *span]
        answer.append(token("<eos>"))
        if rng.random() < short:
            answer = answer[:4]
        weights += [CITE] + [1.0] * (len(answer) - 1)
        prior = {}
        if example.similarities:
            prior = {token(n): PRIOR_SCALE * near for n, near in zip(NUMBERS, example.similarities)}
            prior[token("<none>")] = PRIOR_SCALE * NONE_SIMILARITY
        rows.append(Row(ids + answer, weights, ends, example.right, prior))
    return rows


def batches(rows: list[Row], rng: random.Random, budget: int) -> list[list[Row]]:
    """Rows of like length together, at most `budget` tokens a batch, in random order."""
    rows.sort(key=lambda row: len(row.ids))
    out, current = [], []
    for row in rows:
        if current and (len(current) + 1) * len(row.ids) > budget:
            out.append(current)
            current = []
        current.append(row)
    out.append(current)
    rng.shuffle(out)
    return out


def loss_of(model, tell, batch: list[Row], device: str) -> tuple[torch.Tensor, dict]:
    """Weighted cross-entropy, and that of telling which sentences answer.

    Telling is a second task, in training only: a linear layer, `tell`, on the state at each sentence's end,
    one layer below the top. It gives a signal for each sentence, before the layer that has to name one.
    Logits are made only where a weight is: that saves most of that work.
    """
    width = max(len(row.ids) for row in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)  # right padding: causal attention never sees it
    weights = torch.zeros(len(batch), width)
    for number, row in enumerate(batch):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        weights[number, : len(row.ids)] = torch.tensor(row.weights)
    ends = [(number, end) for number, row in enumerate(batch) for end in row.ends]
    answers = [float(i == row.right) for row in batch for i in range(len(row.ends))]
    ids, weights, ends = ids.to(device), weights.to(device), torch.tensor(ends, device=device)
    out = model.model(input_ids=ids, output_hidden_states=True)
    states = out.last_hidden_state[:, :-1]  # (B, T-1, D)
    targets, weights = ids[:, 1:], weights[:, 1:]
    counted = weights > 0
    logits = model.lm_head(states[counted]).float()  # (N, V)
    weight = weights[counted]
    cited = weight == CITE
    # A citation is chosen by prior times likelihood, so that is what is trained: the model learns where to
    # differ from the encoder. Each row has one citation, so their order is that of the rows.
    prior = torch.zeros(len(batch), logits.shape[1])
    for number, row in enumerate(batch):
        for token, value in row.prior.items():
            prior[number, token] = value
    logits[cited] += prior.to(device)
    losses = F.cross_entropy(logits, targets[counted], reduction="none")
    at_ends = out.hidden_states[-2][ends[:, 0], ends[:, 1]]  # (N, D)
    told = tell(F.layer_norm(at_ends, at_ends.shape[-1:])).squeeze(-1)
    telling = F.binary_cross_entropy_with_logits(told.float(), torch.tensor(answers, device=device))
    parts = {
        "cite": losses[cited].detach().mean(),
        "right": (logits[cited].argmax(-1) == targets[counted][cited]).float().mean(),
        "copy": losses[weight == 1.0].detach().mean(),
        "tell": telling.detach(),
    }
    return (losses * weight).sum() / weight.sum() + telling, parts


class Curriculum:
    """Levels 1 and 2: one sentence, to copy; 3 and 4: several short ones, to tell which one a question is
    about; 5: sentences as they are, one to six, and a growing share of natural questions.

    Up to level 4 every sentence has invented words in it, so that only copying and matching lower the loss.
    """

    def __init__(self, pseudo: PseudoQuestions, natural: NaturalQuestions, own: NaturalQuestions | None):
        self.pseudo, self.natural, self.own = pseudo, natural, own

    def sample(self, level: int, progress: float, rng: random.Random, count: int) -> list[Example]:
        if level < FULL:
            most, longest = {1: (1, 8), 2: (1, 20), 3: (3, 10), 4: (5, 20)}[level]
            least = 1 if most == 1 else 2
            return [self.pseudo.easy(rng, rng.randint(least, most), longest) for _ in range(count)]
        share = 0.4 + 0.4 * progress
        examples = []
        for _ in range(count):
            if rng.random() < share:
                use_own = self.own and rng.random() < 0.2
                examples.append((self.own if use_own else self.natural).sample(rng))
            else:
                examples.append(self.pseudo.sample(rng, rng.randint(1, 6)))
        return examples

    def batches(
        self, level: int, progress: float, tokenizer: Tokenizer, rng: random.Random
    ) -> list[list[Row]]:
        examples = self.sample(level, progress, rng, 400)
        styles = [
            "phrase" if (e.right is None or e.phrase) and rng.random() < 0.33 else "sentence"
            for e in examples
        ]
        short = 0.75 if level in (3, 4) else 0.0  # where matching is learned, most answers are cut
        # Copying appears after so many steps rather than tokens: the first levels take small batches.
        budget = TOKENS_PER_BATCH if level > 2 else TOKENS_PER_BATCH // 2
        return batches(encode_examples(tokenizer, examples, styles, rng, short), rng, budget)


def new_model(tokenizer: Tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=FEED_FORWARD,
            max_position_embeddings=512,
            initializer_range=0.05,  # at this width 0.02 leaves attention flat, and copying appears late
            tie_word_embeddings=True,
            pad_token_id=tokenizer.token_to_id("<pad>"),
            bos_token_id=tokenizer.token_to_id("<bos>"),
            eos_token_id=tokenizer.token_to_id("<eos>"),
            attn_implementation=ATTENTION,
        )
    )


def save(model, tokenizer: Tokenizer, folder: Path) -> None:
    """A folder that transformers loads: fp16 safetensors, tokenizer, chat template."""
    from transformers import PreTrainedTokenizerFast

    half = type(model)(model.config)
    half.load_state_dict(model.state_dict())
    half.config.evidence_sentences = 5  # ragkit's own setting: how many numbered sentences to give it
    half.half().save_pretrained(folder)
    tokenizer.encode_special_tokens = False
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = TEMPLATE.read_text(encoding="utf-8")
    wrapped.save_pretrained(folder)


def train(model, tokenizer: Tokenizer, curriculum: Curriculum, rng: random.Random, arguments) -> None:
    device = arguments.device
    tell = torch.nn.Linear(model.config.hidden_size, 1).to(device)
    torch.nn.init.zeros_(tell.weight)
    model.to(device).train()
    parameters = [*model.parameters(), *tell.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    level = arguments.level
    started, step, tokens, queue, running = time.time(), 0, 0, [], {}
    while True:
        elapsed = (time.time() - started) / 60
        progress = step / arguments.steps if arguments.steps else elapsed / arguments.minutes
        if progress >= 1:
            break
        queue = queue or curriculum.batches(level, progress, tokenizer, rng)
        batch = queue.pop()
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            loss, parts = loss_of(model, tell, batch, device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        tokens += sum(len(row.ids) for row in batch)
        for key, value in {"loss": loss.detach(), **parts}.items():
            if not value.isnan():
                running[key] = 0.98 * running.get(key, float(value)) + 0.02 * float(value)
        if running["copy"] < COPIES if level < 3 else level < FULL and running["right"] > MATCHES:
            level, queue, running["copy"], running["right"] = level + 1, [], 2 * COPIES, 0.5
        if step % 50 == 0:
            figures = "  ".join(f"{key} {value:.3f}" for key, value in running.items())
            speed = f"{tokens / (time.time() - started):,.0f} tokens/s"
            print(f"step {step}  level {level}  {elapsed:.1f} min  {speed}  {figures}", flush=True)
        if step % 1000 == 0:
            save(model.cpu(), tokenizer, arguments.out)
            model.to(device)
    save(model.cpu(), tokenizer, arguments.out)
    print(f"done: {step} steps, {tokens:,} tokens, {(time.time() - started) / 60:.1f} minutes", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, required=True, help="folder of JSON lines with a text field")
    parser.add_argument("--questions", type=Path, required=True, help="folder of questions in SQuAD format")
    parser.add_argument("--own", type=Path, help="this repo's data folder")
    parser.add_argument("--init", type=Path, help="go on from the weights and tokenizer in this folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=100.0)
    parser.add_argument("--steps", type=int, help="stop after so many steps instead (repeatable to the bit)")
    parser.add_argument("--level", type=int, default=1, help="where in the curriculum to begin, 1 to 5")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(arguments)

    rng = random.Random(arguments.seed)
    torch.manual_seed(arguments.seed)
    documents = load_prose(arguments.text)
    encoder = Encoder()
    questions, articles = load_squad(arguments.questions, encoder)
    own = load_own(arguments.own, encoder) if arguments.own else []
    prose = [sentence for document in documents for paragraph in document for sentence in paragraph]
    strangers = rng.sample(prose, min(5000, len(prose)))
    if arguments.init:
        from transformers import LlamaForCausalLM

        tokenizer = Tokenizer.from_file(str(arguments.init / "tokenizer.json"))
        model = LlamaForCausalLM.from_pretrained(
            arguments.init, dtype=torch.float32, attn_implementation=ATTENTION
        )
    else:
        natural_text = [s for q in questions for s in (q.text, *q.sentences)]
        tokenizer = train_tokenizer(prose + natural_text)
        model = new_model(tokenizer)
    size = sum(p.numel() for p in model.parameters())
    print(
        f"{size:,} parameters, {len(prose):,} sentences, {len(questions):,} + {len(own)} questions",
        flush=True,
    )
    curriculum = Curriculum(
        PseudoQuestions(documents, articles),
        NaturalQuestions(questions, strangers),
        NaturalQuestions(own, strangers) if own else None,
    )
    train(model, tokenizer, curriculum, rng, arguments)


if __name__ == "__main__":
    main()
