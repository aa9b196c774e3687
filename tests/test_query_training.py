"""Training queries through p(y|x): its gradient, what it finds, the guard that keeps the encoder."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ragkit import Assistant, Library, retrieve
from ragkit.generation.marginal import Marginal, answer_ids, posterior
from ragkit.generation.query_training import (
    SCALE,
    Asked,
    Candidates,
    QueryEncoder,
    compare_queries,
    train_query_encoder,
)
from tests.helpers import FakeEncoder, passages
from tests.words_encoder import WordsEncoder

TOPICS, EACH = 12, 8


def drawn(questions: int = 6, k: int = 4, tokens: int = 3, size: int = 5) -> Candidates:
    random = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=random, dtype=torch.double)  # noqa: E731
    vectors = F.normalize(draw(questions, size), dim=-1), F.normalize(draw(questions, k, size), dim=-1)
    return Candidates(*vectors, -draw(questions, k, tokens).abs(), [str(n) for n in range(questions)])


class Turned(FakeEncoder):
    """The query "about p3, …" lies near passage p3, seen through a matrix that no passage went through."""

    def __init__(self):
        super().__init__()
        self.turn = np.eye(16) + 0.35 * np.random.default_rng(1).normal(size=(16, 16))

    def encode_query(self, query: str) -> np.ndarray:
        vector = super().encode_query(query)
        if query.startswith("about "):
            vector = (
                super().encode_query(query.split(",")[0].removeprefix("about ")) @ self.turn + 0.2 * vector
            )
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def world(informed: bool = True) -> tuple[Turned, Library, Candidates, dict]:
    """A topic is a passage. The generator finds its answers likely under it, or just anywhere."""
    encoder = Turned()
    texts = [f"p{n}" for n in range(2 * TOPICS)]
    library = Library.build(passages(*texts), encoder)
    noise = np.random.default_rng(2)
    rows = []
    for n in range(TOPICS * EACH):
        topic = texts[n % TOPICS]
        vector = encoder.encode_query(f"about {topic}, {n}")
        hits = retrieve(library, vector, 8)
        likely = [hit.passage.id == topic if informed else noise.random() < 0.2 for hit in hits]
        logs = [[-0.5, -0.5] if one else [-5.0, -5.0] for one in likely]
        rows.append((vector, library.vectors_of(hit.passage.id for hit in hits), np.float32(logs), topic))
    *parts, topics = zip(*rows)
    return (
        encoder,
        library,
        Candidates(*(torch.from_numpy(np.stack(part)) for part in parts), list(topics)),
        {f"{topic} {n}": f"about {topic}, new {n}" for topic in texts[TOPICS:] for n in range(5)},
    )


@pytest.mark.parametrize("formula", ["sequence", "token"])
def test_the_gradient_to_the_query_vectors_is_that_of_finite_differences(formula):
    given = drawn()

    def log_prob(queries, change):
        return Candidates(queries, given.documents, given.log_probs, given.topics).log_prob(change, formula)

    change = 0.1 * torch.randn(5, 5, dtype=torch.double)
    assert torch.autograd.gradcheck(
        log_prob, (given.queries.clone().requires_grad_(), change.requires_grad_())
    )


def test_the_gradient_draws_a_query_by_posterior_minus_prior_and_so_does_distillation():
    given, change = drawn(), torch.zeros(5, 5, dtype=torch.double, requires_grad=True)
    scores = SCALE * torch.einsum("nd,nkd->nk", given.queries, given.documents)
    target, prior = posterior(scores, given.log_probs), scores.softmax(-1)
    drawn_to = SCALE * torch.einsum("nk,nkd->nd", target - prior, given.documents)
    along = (drawn_to * given.queries).sum(-1, keepdim=True) * given.queries  # it stays at length 1
    expected = given.queries.T @ (drawn_to - along)
    (found,) = torch.autograd.grad(given.log_prob(change).sum(), change)
    assert torch.allclose(found, expected)

    moved = F.normalize(given.queries + given.queries @ change, dim=-1)
    log_prior = (SCALE * torch.einsum("nd,nkd->nk", moved, given.documents)).log_softmax(-1)
    (distilled,) = torch.autograd.grad(-F.kl_div(log_prior, target, reduction="sum"), change)
    assert torch.allclose(distilled, expected)


def test_what_is_learned_holds_for_topics_that_training_has_not_seen():
    encoder, library, candidates, asked = world()
    qrels = {key: {f"p{int(key.split()[0][1:])}": 1} for key in asked}
    trained, report = train_query_encoder(encoder, candidates)
    assert not report.kept_base and report.gains[report.decay].low > 0 and str(report.decay) in str(report)
    gain = compare_queries(library, encoder, trained, asked, qrels, ("nDCG@10", "R@3"))
    assert gain.intervals["nDCG@10"].low > 0 and gain.after["R@3"] > gain.base["R@3"]


@pytest.mark.parametrize("formula", ["sequence", "token"])
def test_where_the_generator_tells_nothing_the_encoder_is_kept(formula):
    encoder, _, candidates, _ = world(informed=False)
    kept, report = train_query_encoder(encoder, candidates, formula=formula)
    assert kept is encoder and report.kept_base and "kept" in str(report)


def test_too_few_topics_keep_the_encoder_and_another_formula_is_refused():
    encoder = FakeEncoder()
    kept, report = train_query_encoder(encoder, drawn(questions=4))
    assert kept is encoder and "4 topics" in report.reason
    with pytest.raises(ValueError, match="formula='passage'"):
        train_query_encoder(encoder, drawn(), formula="passage")


@pytest.mark.parametrize("name", ["tiny", "llama", "bart"])
def test_candidates_are_read_whole_each_alone(name, request):
    generator, encoder = request.getfixturevalue(name), WordsEncoder()
    texts = ["Beta holds the policy. It is small.", "The reward is a scalar.", "Milvus keeps vectors."]
    library = Library.build(passages(*texts), encoder)
    questions = [
        Asked("what holds the policy?", "Beta holds the policy.", "a"),
        Asked("what keeps vectors?", "Milvus.", "b"),
    ]
    found = Candidates.of(encoder, library, generator, questions, k=2, progress=False)
    lengths = [len(answer_ids(generator, question.answer)) for question in questions]
    assert found.log_probs.shape == (2, 2, max(lengths)) and lengths[0] > lengths[1]
    assert found.documents.shape == (2, 2, 24) and found.topics == ["a", "b"]
    assert not found.log_probs[1, :, lengths[1] :].any()
    for n, (query, answer, _) in enumerate(questions):
        hits = retrieve(library, encoder.encode_query(query), 2)
        for z, hit in enumerate(hits):
            marginal = Marginal.of(generator, query, [hit], whole=True)
            assert len(marginal.prompts) == 1 and np.allclose(
                found.documents[n, z], library.vectors_of([hit.passage.id])[0]
            )
            with torch.no_grad():
                alone = marginal.log_probs(answer_ids(generator, answer))[0]
            assert torch.allclose(found.log_probs[n, z, : lengths[n]], alone, atol=1e-3)
    with pytest.raises(ValueError, match="k=4 of 3 passages"):
        Candidates.of(encoder, library, generator, questions, k=4)


def test_it_stands_where_an_encoder_stands_and_comes_back_from_a_file(tiny, tmp_path):
    encoder = WordsEncoder()
    library = Library.build(passages("Beta holds the policy.", "The reward is a scalar."), encoder)
    change = np.random.default_rng(0).normal(size=(24, 24)).astype(np.float32)
    trained = QueryEncoder(encoder, change)
    trained.save(tmp_path / "queries.safetensors")
    loaded = QueryEncoder.load(tmp_path / "queries.safetensors", encoder)
    for one in (trained, loaded, copy.deepcopy(trained)):
        vector = one.encode_query("what holds the policy?")
        expected = encoder.encode_query("what holds the policy?") @ (np.eye(24) + change)
        assert np.allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)
        assert np.array_equal(one.encode_passages(["Beta"]), encoder.encode_passages(["Beta"]))
    turn = Assistant(loaded, library, tiny).ask("what holds the policy?", k=2)
    assert np.array_equal(turn.query_vector, vector) and len(turn.hits) == 2
    with pytest.raises(ValueError, match="trained on encoder 'words', and this is another"):
        QueryEncoder.load(tmp_path / "queries.safetensors", WordsEncoder(seed=1))
    with pytest.raises(ValueError, match="change has shape"):
        QueryEncoder(encoder, change[1:])
