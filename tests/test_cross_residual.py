"""The cross-encoder: it starts as the retriever, learns an order, and leaves the encoder alone."""

import dataclasses

import numpy as np
import pytest
import torch

import ragkit.reranking.cross_encoder
from ragkit.losses.strengths import delta_ndcg
from ragkit.preferences.judgements import Ranking
from ragkit.reranking.cross_encoder import CrossResidual, train_cross
from ragkit.reranking.features import Described, describe_all
from ragkit.reranking.objective import Objective
from ragkit.reranking.reranker import Reranker
from ragkit.reranking.table import Table, base_scores
from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.windows import batches
from tests.simulated_rankings import simulated

WORDS = "a reranker learns from clicks which document people want beta holds it near the first order".split()
WINDOW = 40


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """A BERT of two layers with random weights, and a window of 40 tokens."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(WORDS))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), max_position_embeddings=WINDOW, initializer_range=0.3,
        hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return Encoder(str(folder), device="cpu")


def text(random, size: int = 12) -> str:
    return " ".join(random.choice(WORDS, size))


def documents(*texts: str) -> list[Passage]:
    return [Passage(f"p{n}", one) for n, one in enumerate(texts)]


def wanted(number: int = 24, size: int = 4, word: str = "beta", seed: int = 0) -> list[Ranking]:
    """Rankings of people who want the documents with a word in them on top, and tie the rest."""
    random = np.random.default_rng(seed)
    rankings = []
    for _ in range(number):
        texts = [text(random).replace(word, "a") for _ in range(size)]
        best = int(random.integers(size))
        texts[best] = f"{word} {word} {texts[best]} {word}"
        rest = [i for i in range(size) if i != best]
        rankings.append(Ranking(text(random, 4), documents(*texts), [[best], rest]))
    return rankings


def swapped(rankings: list[Ranking]) -> list[Ranking]:
    return [dataclasses.replace(one, tiers=one.tiers[::-1]) for one in rankings]


def described(encoder, rankings: list[Ranking]) -> list[Described]:
    return describe_all(encoder, [(one.query, [p.full_text for p in one.passages]) for one in rankings])


def trained(encoder, rankings: list[Ranking], objective: Objective | None = None, **settings):
    table = Table.build(rankings, described(encoder, rankings))
    settings = {"epochs": 1, "progress": False} | settings
    return train_cross(encoder, rankings, table, objective or Objective(), **settings)


def loss_of(residual, encoder, rankings: list[Ranking], objective: Objective) -> float:
    seen = described(encoder, rankings)
    found = torch.from_numpy(np.concatenate([residual(one) for one in seen]))
    return objective(Table.build(rankings, seen))(found, residual.first).mean().item()


def accuracy(residual, encoder, rankings: list[Ranking]) -> float:
    """Of pairs, by s_0 + r."""
    seen = described(encoder, rankings)
    scores = np.concatenate([base_scores(one) + residual(one) for one in seen])
    table = Table.build(rankings, seen)
    decided = table.pairs.target == 1
    return float(np.mean((scores[table.sides] @ [1.0, -1.0] > 0)[decided]))


# --- the start


def test_before_training_the_score_is_the_retrievers_to_the_last_bit(tiny_encoder):
    rankings = wanted(3)
    residual = trained(tiny_encoder, rankings, epochs=0)
    for one in described(tiny_encoder, rankings):
        assert (residual(one) == 0).all() and residual(one).shape == (4,)
        assert (base_scores(one) + residual(one) == base_scores(one)).all()
    assert residual.first == 0.0


def test_the_default_encoder_starts_and_moves_too(encoder):
    rankings = [Ranking("what does beta do", documents("Beta holds it near.", "Clicks differ."), [[1], [0]])]
    (one,) = described(encoder, rankings)
    assert (trained(encoder, rankings, epochs=0)(one) == 0).all()
    found = trained(encoder, rankings, epochs=2)(one)
    assert found[1] > 0 > found[0]


# --- training


def test_the_encoder_stays_what_it_was(tiny_encoder):
    model = tiny_encoder.model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    asked = {name: weight.requires_grad for name, weight in model.named_parameters()}
    residual = trained(tiny_encoder, wanted(12), learning_rate=1e-2)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == asked
    moved = residual.trained()
    assert moved and all(not torch.equal(weight, before[name]) for name, weight in moved.items())
    rest = {name: weight for name, weight in residual.model.state_dict().items() if name not in moved}
    assert all(torch.equal(weight, before[name]) for name, weight in rest.items())
    assert any("layer.1" in name for name in moved) and not any("layer.0" in name for name in moved)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tiny_encoder):
    torch.manual_seed(1)
    one = trained(tiny_encoder, wanted(12), seed=3).tensors()
    torch.manual_seed(2)  # the generator that everybody shares has no say, nor is it touched
    state = torch.get_rng_state()
    same = trained(tiny_encoder, wanted(12), seed=3).tensors()
    assert torch.equal(torch.get_rng_state(), state)
    other = trained(tiny_encoder, wanted(12), seed=4).tensors()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head"], other["head"])


@pytest.mark.parametrize(
    "objective",
    [
        Objective(),
        Objective("dpo", beta=0.5, anchor="reference"),
        Objective("ipo", beta=0.5),
        Objective("gpo:hinge"),
        Objective("plackett_luce"),
        Objective(weight=delta_ndcg()),
    ],
    ids=lambda objective: objective.loss if objective.weight is None else "delta_ndcg",
)
def test_training_lowers_the_loss_on_its_data(tiny_encoder, objective):
    rankings = wanted(16)
    start = trained(tiny_encoder, rankings, objective, epochs=0)
    after = trained(tiny_encoder, rankings, objective)
    plain = dataclasses.replace(objective, weight=None)  # what moves with the scores can't be compared
    assert (
        loss_of(after, tiny_encoder, rankings, plain) < loss_of(start, tiny_encoder, rankings, plain) - 0.03
    )


def test_what_people_want_is_found_in_new_lists_and_the_opposite_by_those_who_want_it(tiny_encoder):
    new = wanted(20, seed=1)
    settings = {"epochs": 2, "learning_rate": 1e-3}
    likes = trained(tiny_encoder, wanted(40), **settings)
    dislikes = trained(tiny_encoder, swapped(wanted(40)), **settings)
    assert accuracy(likes, tiny_encoder, new) > 0.9 > 0.1 > accuracy(dislikes, tiny_encoder, new)


@pytest.mark.parametrize(
    "objective", [Objective(), Objective("plackett_luce")], ids=["grpo", "plackett_luce"]
)
def test_lists_without_a_pair_change_nothing(tiny_encoder, objective):
    rankings = wanted(6)
    alone = Ranking("which document", documents("a click"), [[0]])
    unjudged = Ranking("which order", documents("a click", "beta"), [])
    one = trained(tiny_encoder, rankings, objective).tensors()
    same = trained(tiny_encoder, [alone, *rankings, unjudged], objective).tensors()
    assert one["head"].abs().sum() > 0 and all(torch.equal(one[name], same[name]) for name in one)
    residual = trained(tiny_encoder, [alone, unjudged], objective)
    assert (residual(described(tiny_encoder, [unjudged])[0]) == 0).all()
    assert CrossResidual.from_tensors(tiny_encoder, one)(described(tiny_encoder, [alone])[0]) == [0.0]


def test_a_step_takes_whole_lists_and_every_list_once():
    sizes = np.array([4, 4, 4, 30, 4, 4, 4, 4, 1])
    order = np.array([8, 3, 1, 0, 2, 7, 6, 5, 4])
    steps = [step.tolist() for step in ragkit.reranking.cross_encoder._steps(order, sizes)]
    assert steps == [[8], [3], [0, 1, 2, 6, 7], [4, 5]]


def test_the_rate_rises_then_falls_to_zero():
    rates = [ragkit.reranking.cross_encoder._slope(step, 100) for step in range(101)]
    assert 0 < rates[0] < 0.1 and max(rates) > 0.98 and np.argmax(rates) in (9, 10, 11) and rates[-1] == 0
    assert (np.diff(rates[:10]) > 0).all() and (np.diff(rates[11:]) < 0).all()
    assert ragkit.reranking.cross_encoder._slope(0, 1) > 0  # one step alone must not be lost


def test_the_gradient_of_the_head_is_that_of_finite_differences(tiny_encoder):
    """In float64: d loss / d head of one list, through pooling, pairs and weights."""
    (ranking,) = wanted(1)
    (seen,) = described(tiny_encoder, [ranking])
    residual = CrossResidual(tiny_encoder)
    residual.model.double()
    random = torch.Generator().manual_seed(0)
    head = torch.randn(24, generator=random, dtype=torch.float64) * 0.1
    loss = Objective(beta=0.7)(Table.build([ranking], [seen]))
    rows = residual.tokens(seen.query, seen.texts)

    def total(head):
        residual.head = head
        return loss(residual.residuals(rows)).mean()

    assert torch.autograd.gradcheck(total, head.requires_grad_(), eps=1e-6, atol=1e-8)
    assert total(head).item() > 0


def test_the_first_gradient_is_the_closed_form(tiny_encoder):
    """At the start r = 0, so one pair's loss has d/d head = −σ(−Δs_0) · (pooled⁺ − pooled⁻)."""
    ranking = Ranking("which document", documents("beta holds", "a click learns it"), [[0], [1]])
    (seen,) = described(tiny_encoder, [ranking])
    residual = CrossResidual(tiny_encoder)
    found = residual.residuals(residual.tokens(seen.query, seen.texts)).double()
    Objective()(Table.build([ranking], [seen]))(found).mean().backward()
    pooled = []
    for one in seen.texts:
        row = tiny_encoder.tokenizer(seen.query, one, return_tensors="pt")
        pooled.append(tiny_encoder.model(**row).last_hidden_state[0].mean(0).detach())
    base = base_scores(seen)
    expected = -1 / (1 + np.exp(base[0] - base[1])) * (pooled[0] - pooled[1])
    torch.testing.assert_close(residual.head.grad, expected, rtol=1e-4, atol=1e-6)


def test_what_is_shown_first_is_an_offset_where_people_click_on_it(tiny_encoder):
    """People here take what was shown above with probability σ(1 · places), whatever it says."""
    random = np.random.default_rng(0)
    rankings = []
    for _ in range(60):
        shown = random.permutation(3).tolist()
        utility = -np.argsort(shown) + random.gumbel(size=3)
        tiers = [[int(i)] for i in np.argsort(-utility)]
        texts = [text(random) for _ in range(3)]
        rankings.append(Ranking(text(random, 4), documents(*texts), tiers, shown_order=shown))
    objective = Objective(first=True, anchor="reference")
    learned = trained(tiny_encoder, rankings, objective)
    assert 0.5 < learned.first < 1.5
    opposite = trained(tiny_encoder, swapped(rankings), objective)
    assert -1.5 < opposite.first < -0.5
    assert trained(tiny_encoder, rankings, Objective(anchor="reference")).first == 0.0


def test_a_training_that_runs_away_is_an_error(tiny_encoder):
    with pytest.raises(ValueError, match=r"the loss is (nan|inf): try a smaller learning rate"):
        trained(tiny_encoder, wanted(12), learning_rate=1e30, epochs=2)


def test_a_table_of_other_rankings_is_refused(tiny_encoder):
    rankings = wanted(3)
    table = Table.build(rankings, described(tiny_encoder, rankings))
    with pytest.raises(ValueError, match="2 rankings for a table of 3"):
        train_cross(tiny_encoder, rankings[:2], table, Objective(), progress=False)


# --- tokens


def test_a_long_document_is_cut_and_the_query_is_not(tiny_encoder):
    residual = CrossResidual(tiny_encoder)
    query = "which document holds it near"
    long, short = residual.tokens(query, ["beta " * 300, "beta"])
    asked = tiny_encoder.tokenizer(query)["input_ids"]
    assert len(long["input_ids"]) == WINDOW == residual.window
    assert long["input_ids"][: len(asked)] == asked == short["input_ids"][: len(asked)]
    assert long["token_type_ids"] == [0] * len(asked) + [1] * (WINDOW - len(asked))
    assert long["input_ids"][-1] == tiny_encoder.tokenizer.sep_token_id
    assert len(short["input_ids"]) == len(asked) + 2
    assert np.isfinite(residual(Described(query, ["beta " * 300, ""], None, None, None))).all()
    assert tiny_encoder.tokenizer.backend_tokenizer.truncation is None  # it is the encoder's too


def test_a_query_as_long_as_the_window_leaves_half_of_it(tiny_encoder):
    (row,) = CrossResidual(tiny_encoder).tokens("which " * 100, ["beta " * 100])
    assert row["token_type_ids"].count(0) == WINDOW // 2 + 2
    assert row["token_type_ids"].count(1) == WINDOW // 2 - 2


def test_neither_scores_nor_gradients_depend_on_how_documents_are_batched(tiny_encoder, monkeypatch):
    residual = trained(tiny_encoder, wanted(6))
    residual.model.double()
    residual.head = residual.head.detach().double().requires_grad_()
    random = np.random.default_rng(5)
    rows = residual.tokens("which order", [text(random, size) for size in (3, 30, 1, 12, 20)])

    def one_step():
        found = residual.residuals(rows)
        weights = [residual.head, *residual.trained().values()]
        return [found.detach(), *torch.autograd.grad((found**3).sum(), weights)]

    at_once = one_step()
    assert at_once[1].abs().max() > 0
    monkeypatch.setattr(ragkit.reranking.cross_encoder, "TOKENS", 40)
    assert len(batches([len(row["input_ids"]) for row in rows], 40)) > 2
    for apart, together in zip(one_step(), at_once):
        torch.testing.assert_close(apart, together, rtol=1e-9, atol=1e-12)


def test_a_document_alone_and_an_order_turned_round_get_what_they_got(tiny_encoder):
    residual = trained(tiny_encoder, wanted(10), learning_rate=1e-2)
    (seen,) = described(tiny_encoder, wanted(1, seed=2))
    turned = dataclasses.replace(seen, texts=seen.texts[::-1])
    assert np.allclose(residual(turned), residual(seen)[::-1], atol=1e-6)
    assert abs(residual(seen).mean()) < 1e-12
    parts = residual.parts(seen)
    assert list(parts) == ["cross-encoder"] and (parts["cross-encoder"] == residual(seen)).all()


# --- on disk


def test_tensors_give_the_same_scores_again(tiny_encoder, tmp_path):
    from safetensors.torch import load_file, save_file

    objective = Objective(first=True)
    residual = trained(tiny_encoder, wanted(8), objective, learning_rate=1e-2)
    residual.first, residual.window = 1 / 3, 12
    save_file(residual.tensors(), tmp_path / "weights.safetensors")
    again = CrossResidual.from_tensors(tiny_encoder, load_file(tmp_path / "weights.safetensors"))
    (seen,) = described(tiny_encoder, wanted(1, seed=9))
    assert (again(seen) == residual(seen)).all() and np.ptp(again(seen)) > 0
    assert again.first == residual.first and again.window == residual.window
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in residual.tensors().items())
    assert residual.tensors().keys() == again.tensors().keys()


def test_weights_of_another_encoder_are_refused(tiny_encoder, encoder):
    tensors = CrossResidual(tiny_encoder).tensors()
    with pytest.raises(ValueError, match="don't fit encoder"):
        CrossResidual.from_tensors(encoder, tensors)
    with pytest.raises(ValueError, match=r"don't fit encoder .*'layer.9'"):
        CrossResidual.from_tensors(tiny_encoder, tensors | {"model.layer.9": torch.zeros(1)})
    del tensors["head"]
    with pytest.raises(ValueError, match=r"don't fit encoder .*head"):
        CrossResidual.from_tensors(tiny_encoder, tensors)


def test_a_cross_encoder_that_a_few_rankings_trained_is_hardly_believed(tiny_encoder):
    """What held-out lists do not confirm is applied by its share: the head is that much smaller."""
    reranker = Reranker(tiny_encoder, "cross-encoder")
    report = reranker.fit(simulated(12, taste=0.0), progress=False)
    assert report.share < 0.3 and f"{report.share:.0%} of what they seem to say" in report.reason
    for one in simulated(5, seed=8):
        before, after = (way(one.query, one.passages) for way in (reranker.base, reranker.score))
        assert np.abs((after - before) - (after - before).mean()).max() < 0.5
