"""Losses and log-probs against other people's code: TRL, Liger, sentence-transformers, PyTorch.

Each test skips without its package. Models are a few thousand random weights; nothing is fetched.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ragkit.losses.group_relative import group_relative_loss
from ragkit.losses.log_probs import completion_log_probs
from ragkit.losses.pairwise import (
    dpo_loss,
    gpo_loss,
    grpo_loss,
    ipo_loss,
    margin,
    pair_loss,
    plackett_luce_loss,
    robust_dpo_loss,
)
from ragkit.losses.strengths import delta_ndcg
from ragkit.losses.unpaired import kto_loss
from ragkit.preferences.pairs import Pairs

close = torch.testing.assert_close
V, PAD, EOS = 62, 0, 1


def same(found, wanted, *inputs, within=1e-9):
    """Two losses agree, and their gradients in each input, up to `within` of the largest number of each."""
    for x, y in zip(*([loss, *torch.autograd.grad(loss, inputs)] for loss in (found, wanted))):
        assert y.any()  # or zeros would agree
        close(x / y.abs().max(), y / y.abs().max(), atol=within, rtol=0)


# TRL


def llama(seed=0):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None}
    return LlamaForCausalLM(LlamaConfig(vocab_size=V, initializer_range=0.5, **shape, **special))


def words():
    """A tokenizer of 60 words, w0 to w59."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", *(f"w{i}" for i in range(60))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


QUIET = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True}
QUIET |= {"activation_checkpointing": False}  # "gradient_checkpointing" until transformers 5
CHATS = [
    {"prompt": "w1 w2 w3", "chosen": " w4 w5", "rejected": " w6 w7 w8 w9"},
    {"prompt": "w1", "chosen": " w4 w5 w7 w8 w10 w2", "rejected": " w6"},
    {"prompt": "w20 w4", "chosen": " w30", "rejected": " w41 w6"},
]


@pytest.fixture(scope="module")
def dpo_trainer(tmp_path_factory):
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    settings = DPOConfig(str(tmp_path_factory.mktemp("dpo")), per_device_train_batch_size=len(CHATS), **QUIET)
    data = Dataset.from_list(CHATS)
    trainer = DPOTrainer(llama(0), llama(1), args=settings, train_dataset=data, processing_class=words())
    trainer.batch = next(iter(trainer.get_train_dataloader()))
    return trainer


@pytest.fixture(scope="module")
def group_trainer(tmp_path_factory):
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    # With a KL term TRL would load the reference from a path; the batch below has its log-probs already.
    settings = {"beta": 0.0, "per_device_train_batch_size": 4, "num_generations": 4, **QUIET}
    settings = GRPOConfig(str(tmp_path_factory.mktemp("group")), **settings)
    trainer = GRPOTrainer(
        llama(), lambda completions, **_: [0.0] * len(completions), args=settings,
        train_dataset=Dataset.from_list([{"prompt": "w1"}]), processing_class=words(),
    )  # fmt: skip
    trainer.model.eval()  # in training TRL also divides by the steps that it accumulates
    return trainer


def test_token_log_probs_are_trls():
    """completion_log_probs = TRL's selective_log_softmax of the full logits, for each token, within 5e-6."""
    utils = pytest.importorskip("trl.trainer.utils")
    model = llama()
    ids = torch.randint(2, V, (3, 11), generator=torch.Generator().manual_seed(0))
    attention = torch.arange(11) < torch.tensor([[11], [7], [9]])
    mask = attention & (torch.arange(11) >= torch.tensor([[4], [1], [8]]))
    sums, per_token = completion_log_probs(model, ids, attention.long(), mask, chunk=4)
    logits = model(input_ids=ids, attention_mask=attention.long()).logits
    wanted = utils.selective_log_softmax(logits[:, :-1], ids[:, 1:]) * mask[:, 1:]
    assert wanted[mask[:, 1:]].std() > 1  # or any weights would agree
    close(per_token[:, 1:], wanted, atol=5e-6, rtol=0)
    close(sums, wanted.sum(1), atol=5e-5, rtol=0)


def test_encoder_decoder_log_probs_are_those_of_its_logits():
    """completion_log_probs of a T5 = log_softmax and gather of its logits, token by token, within 5e-6."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=V, decoder_start_token_id=PAD, **shape)).eval()
    inputs, decoder = torch.randint(2, V, (2, 6)), torch.randint(2, V, (2, 5))
    decoder[:, 0] = PAD
    attention = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
    mask = torch.tensor([[0, 1, 1, 1, 1], [0, 1, 1, 0, 0]])
    _, per_token = completion_log_probs(model, inputs, attention, mask, decoder, chunk=3)
    logits = model(input_ids=inputs, attention_mask=attention, decoder_input_ids=decoder).logits
    wanted = logits[:, :-1].log_softmax(-1).gather(2, decoder[:, 1:, None])[:, :, 0] * mask[:, 1:]
    close(per_token[:, 1:], wanted, atol=5e-6, rtol=0)


OURS = {
    "sigmoid": lambda x, beta: dpo_loss(x, beta),
    "hinge": lambda x, beta: gpo_loss(x, beta, "hinge"),
    "robust": lambda x, beta: robust_dpo_loss(x, beta, 0.2),
    "ipo": lambda x, beta: ipo_loss(x, beta),
}


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("beta", [0.1, 0.6])
def test_dpo_losses_are_those_of_trls_trainer(dpo_trainer, kind, beta):
    """DPOTrainer's loss on a padded batch is ours, and its gradient in each weight of the model; for IPO with
    log-ratios averaged over the completion's tokens, as TRL takes them."""
    trainer, batch = dpo_trainer, dpo_trainer.batch
    trainer.loss_types, trainer.beta, trainer.label_smoothing = [kind], beta, 0.2
    ids = batch["input_ids"], batch["attention_mask"], batch["completion_mask"]
    policy, _ = completion_log_probs(trainer.model, *ids)
    with torch.no_grad():
        reference, _ = completion_log_probs(trainer.ref_model, *ids)
    divisor = batch["completion_mask"].sum(1) if kind == "ipo" else 1
    x = margin(*(policy / divisor).chunk(2), *(reference / divisor).chunk(2))
    wanted = trainer._compute_loss(trainer.model, batch, False)
    same(OURS[kind](x, beta), wanted, *trainer.model.parameters(), within=2e-5)


@pytest.mark.parametrize(
    ("ratio", "corrected"), [("token", True), ("token", False), ("sequence", False)], ids=str
)
@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo"])
def test_group_losses_are_those_of_trls_trainer(group_trainer, kind, ratio, corrected):
    """GRPOTrainer's loss = group_relative_loss, with its gradient in each weight: prompts padded left and
    completions right, old and reference log-probs, an asymmetric clip, both forms of the KL, ratios of tokens
    and of sequences (where TRL corrects the KL by the sequence's ratio, too)."""
    trainer = group_trainer
    trainer.importance_sampling_level = ratio
    trainer.loss_type, trainer.beta, trainer.args.use_bias_correction_kl = kind, 0.3, corrected
    trainer.epsilon_low, trainer.epsilon_high, trainer.max_completion_length = 0.1, 0.28, 9
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, V, (4, 8), generator=generator)
    prompt = torch.arange(3) >= torch.tensor([[0], [2], [1], [0]])
    written = torch.arange(5) < torch.tensor([[5], [2], [1], [4]])
    attention = torch.cat([prompt, written], 1)
    mask = torch.cat([torch.zeros_like(prompt), written], 1)
    advantages = torch.tensor([1.2, -0.7, 0.0, 0.5])
    now = completion_log_probs(trainer.model, ids, attention.long(), mask)[1]
    old, ref = (now.detach() + 0.8 * torch.randn(now.shape, generator=generator) for _ in range(2))
    found = group_relative_loss(
        now, old, ref, mask, advantages, clip=(0.1, 0.28), kl=0.3, kl_correction=corrected, ratio=ratio,
        aggregation=kind, max_length=9 if kind == "dr_grpo" else None,
    )  # fmt: skip
    inputs = {
        "prompt_ids": ids[:, :3], "prompt_mask": prompt.long(),
        "completion_ids": ids[:, 3:], "completion_mask": written.long(), "advantages": advantages,
        "old_per_token_logps": old[:, 3:], "ref_per_token_logps": ref[:, 3:],
        "num_items_in_batch": written.sum(),
    }  # fmt: skip
    wanted = trainer._compute_loss(trainer.model, inputs)
    same(found, wanted, *trainer.model.parameters(), within=2e-5)


# Liger


def four(pairs=5):
    """Log-probs of the two sides under the policy and the reference, with gradients for the policy's."""
    generator = torch.Generator().manual_seed(1)
    chosen, rejected, *reference = (4 * torch.randn(4, pairs, generator=generator).double() - 20).unbind()
    return chosen.requires_grad_(), rejected.requires_grad_(), *reference


def liger_dpo(chosen, rejected, ref_chosen, ref_rejected, **settings):
    module = pytest.importorskip("liger_kernel.chunked_loss.dpo_loss")
    target = torch.zeros(2 * len(chosen), 1)  # Liger counts pairs by it
    function = module.LigerFusedLinearDPOFunction.preference_loss_fn
    return function(chosen, rejected, target, ref_chosen, ref_rejected, **settings)[0]


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "robust"])
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_losses_are_ligers(kind, beta):
    """dpo_loss, gpo_loss's hinge and robust_dpo_loss = Liger's, value and gradient, in float64."""
    inputs = four()
    wanted = liger_dpo(*inputs, beta=beta, loss_type=kind, label_smoothing=0.2)
    same(OURS[kind](margin(*inputs), beta), wanted, *inputs[:2])


def test_a_strength_for_each_pair_is_liger_one_pair_at_a_time():
    """grpo_loss = the mean of Liger's DPO over single pairs, each with its own h as β, value and gradient."""
    inputs, strengths = four(), torch.tensor([0.02, 0.1, 0.5, 2.0, -0.3]).double()
    alone = [liger_dpo(*(x[i, None] for x in inputs), beta=float(h)) for i, h in enumerate(strengths)]
    found = grpo_loss(margin(*inputs), strengths)
    same(found, torch.stack(alone).mean(), *inputs[:2])
    assert abs(found - liger_dpo(*inputs, beta=float(strengths.mean()))) > 0.1  # no β stands for all


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("on_policy", [True, False])
def test_group_losses_are_ligers(kind, corrected, on_policy):
    """group_relative_loss = Liger's, value and gradient, in float64: with the policy's own log-probs as the
    old ones and with others, with both forms of the KL."""
    module = pytest.importorskip("liger_kernel.chunked_loss.grpo_loss")
    generator = torch.Generator().manual_seed(2)
    now, old, ref = (0.3 * torch.randn(3, 6, 7, generator=generator).double() - 2).unbind()
    mask = torch.arange(7) < torch.tensor([[7], [1], [3], [5], [7], [2]])
    advantages = torch.tensor([1.3, -0.4, 0.0, 2.0, -1.1, 0.6]).double()
    now.requires_grad_()
    old = None if on_policy else old
    wanted, _ = module.LigerFusedLinearGRPOFunction.ppo_loss_fn(
        now, mask, advantages, mask, ref_per_token_logps=ref, old_per_token_logps=old, beta=0.1,
        loss_type=kind, epsilon_low=0.15, epsilon_high=0.28, max_completion_length=11,
        use_bias_correction_kl=corrected,
    )  # fmt: skip
    found = group_relative_loss(
        now, old, ref, mask, advantages, clip=(0.15, 0.28), kl=0.1, kl_correction=corrected,
        aggregation=kind, max_length=11 if kind == "dr_grpo" else None,
    )  # fmt: skip
    same(found, wanted, now)


# sentence-transformers: two queries with five and three documents. It averages over all pairs of unlike
# grades, of all queries together, and takes logarithms to the base 2 unless told.

SCORES = torch.tensor([0.3, 1.9, -0.8, 0.1, 2.2, -0.4, 0.9, 0.2])
GRADES = [torch.tensor([0.0, 3.0, 1.0, 1.0, 2.0]), torch.tensor([2.0, 1.0, 0.0])]
DOCS = [["a", "b", "c", "d", "e"], ["f", "g", "h"]]


class Scores:
    """What these losses want of a model: scores of (query, document), here given ones."""

    num_labels, device = 1, "cpu"

    def __init__(self, scores):
        self.by_document = dict(zip("abcdefgh", scores))

    def preprocess(self, pairs, **_):
        return {"scores": torch.stack([self.by_document[document] for _, document in pairs])}

    def __call__(self, features):
        return features


def theirs(name, scores, grades=GRADES, **settings):
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    if scheme := settings.pop("scheme", None):
        settings["weighting_scheme"] = getattr(losses, scheme)()
    return getattr(losses, name)(Scores(scores), mini_batch_size=-1, **settings)([["q1", "q2"], DOCS], grades)


def unlike_pairs():
    """All pairs of unlike grades as Pairs, and which scores they have, (P, 2)."""
    rows = []
    for query, docs, grades in zip(("q1", "q2"), DOCS, GRADES):
        both = [(i, j) for i in range(len(docs)) for j in range(len(docs)) if grades[i] > grades[j]]
        rows += [(query, docs[i], docs[j], float(grades[i]), float(grades[j])) for i, j in both]
    query, chosen, rejected, high, low = zip(*rows)
    # Their gain is 2^grade − 1, ours is the grade itself.
    gains = {"chosen_grade": 2.0 ** np.array(high) - 1, "rejected_grade": 2.0 ** np.array(low) - 1}
    index = torch.tensor([["abcdefgh".index(c) for c in side] for side in (chosen, rejected)]).T
    return Pairs(list(query), list(chosen), list(rejected), **gains), index


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_ranknet_is_a_pair_loss_on_scores(strength):
    """pair_loss of score differences = RankNetLoss with sigma = h and natural logarithms."""
    scores, (_, index) = SCORES.clone().requires_grad_(), unlike_pairs()
    found = pair_loss(scores[index[:, 0]] - scores[index[:, 1]], strength=strength)
    wanted = theirs("RankNetLoss", scores, sigma=strength, reduction_log="natural")
    same(found, wanted, scores, within=1e-5)


def test_lambdarank_is_a_weight_outside_the_logarithm():
    """pair_loss with weight |ΔnDCG| = ln 2 · LambdaLoss with LambdaRank's scheme, value and gradient; as
    strengths the same numbers give another loss."""
    scores, (pairs, index) = SCORES.clone().requires_grad_(), unlike_pairs()
    x, weight = scores[index[:, 0]] - scores[index[:, 1]], delta_ndcg()(pairs, scores[index])
    wanted = np.log(2) * theirs("LambdaLoss", scores, scheme="LambdaRankScheme")
    same(pair_loss(x, weight=weight), wanted, scores, within=1e-5)
    assert abs(pair_loss(x, strength=weight) - wanted) > 0.1


def test_plackett_luce_is_listmle():
    """plackett_luce_loss of two lists, five and three long, best first = ListMLELoss; and with tiers in any
    order = ListMLELoss after it sorted by grade."""
    scores, mask = SCORES.clone().requires_grad_(), torch.arange(5) < torch.tensor([[5], [3]])
    ratios = torch.zeros(2, 5).masked_scatter(mask, scores)
    same(plackett_luce_loss(ratios, mask=mask, beta=1.0), theirs("ListMLELoss", scores), scores, within=1e-5)

    grades = [torch.tensor([0.0, 3.0, 1.0, 1.5, 2.0]), GRADES[1]]  # no ties: it has no rule for them
    tiers = torch.zeros(2, 5).masked_scatter(mask, -torch.cat(grades))
    ratios = torch.zeros(2, 5).masked_scatter(mask, scores)
    wanted = theirs("ListMLELoss", scores, grades, respect_input_order=False)
    same(plackett_luce_loss(ratios, tiers, mask, beta=1.0), wanted, scores, within=1e-5)


# PyTorch


def test_target_and_weight_are_those_of_binary_cross_entropy():
    """pair_loss = binary_cross_entropy_with_logits of z = h·Δ − m with a soft target and a weight."""
    generator = torch.Generator().manual_seed(3)
    x, h, m, p, w = torch.rand(5, 9, generator=generator).double().unbind()
    x = (8 * x - 4).requires_grad_()
    wanted = binary_cross_entropy_with_logits(h * x - m, p, w)
    same(pair_loss(x, strength=h, offset=m, target=p, weight=w), wanted, x)


@pytest.mark.parametrize("good", [[True, False, True, False], [True, True, True, False], [False] * 4])
@pytest.mark.parametrize("kl", [-0.5, 0.7])
def test_kto_is_ligers_of_each_kind_alone(good, kl):
    """kto_loss = the mean of Liger's over the liked and over the others, value and gradient, in float64;
    Liger gets max(0, KL), as the paper has it. Balanced kinds give Liger's own mean."""
    module = pytest.importorskip("liger_kernel.chunked_loss.kto_loss")
    function = module.LigerFusedLinearKTOFunction.preference_loss_fn
    now, _, ref, _ = four(4)
    good = torch.tensor(good)

    def liger(rows):
        target = torch.zeros(int(rows.sum()), 1)
        return function(now[rows], good[rows], target, ref[rows], beta=0.3, kl=max(kl, 0.0))[0]

    found = kto_loss(now - ref, good, kl, beta=0.3)
    same(found, torch.stack([liger(rows) for rows in (good, ~good) if rows.any()]).mean(), now)
    if good.float().mean() == 0.5:
        same(kto_loss(now - ref, good, kl, beta=0.3), liger(torch.ones(4, dtype=torch.bool)), now)
