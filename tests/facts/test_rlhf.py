"""Every formula and number in data/build/topics/rlhf.toml, worked through in code."""

import itertools
import math
import tomllib
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logsumexp, softmax


def differences(f, x, step=1e-6):
    """Central finite differences of a scalar function of a vector."""
    x = np.asarray(x, dtype=float)
    return np.array([(f(x + step * e) - f(x - step * e)) / (2 * step) for e in np.eye(len(x))])


def kl(p, q):
    """KL(p‖q) in nats, for p and q without zeros."""
    return float(np.sum(p * np.log(p / q)))


def texts(topic):
    """The three passages of a topic as the TOML has them, by style."""
    path = Path(__file__).parents[2] / "data/build/topics/rlhf.toml"
    topics = {t["id"]: t for t in tomllib.loads(path.read_text(encoding="utf-8"))["topic"]}
    return {p["style"]: p["text"] for p in topics[topic]["passage"]}


def test_policy_gradient():
    """J, REINFORCE's expectation and π_j·(R_j − J) agree with finite differences; 0.2 and ∓0.16."""
    s, reward = np.log([0.8, 0.2]), np.array([0.0, 1.0])
    pi = softmax(s)
    mean_reward = pi @ reward
    assert np.isclose(mean_reward, 0.2)
    closed = pi * (reward - mean_reward)
    assert np.allclose(closed, [-0.16, 0.16])
    assert np.allclose(closed, differences(lambda z: softmax(z) @ reward, s))
    score = np.eye(2) - pi  # row y: ∇log π(y)
    assert np.allclose(pi @ (reward[:, None] * score), closed)
    # the identity ∇π = π·∇log π, with a third answer: logits rise exactly where R > J
    s, reward = np.array([0.3, -1.0, 0.7]), np.array([2.0, -1.0, 0.5])
    pi = softmax(s)
    for y in range(3):
        numerical = differences(lambda z, y=y: softmax(z)[y], s)
        assert np.allclose(numerical, pi[y] * (np.eye(3)[y] - pi))
    gradient = differences(lambda z: softmax(z) @ reward, s)
    assert np.array_equal(gradient > 0, reward > pi @ reward)
    # the surrogate −R·log π has minus the policy gradient as its mean gradient
    logits = torch.tensor(s, requires_grad=True)
    weight = torch.tensor(pi)
    (-(weight * torch.tensor(reward) * logits.log_softmax(0)).sum()).backward()
    assert np.allclose(-logits.grad.numpy(), gradient)
    # and its value is no measure of progress: better policies do not always have the lower loss

    def loss(p, r):
        return -(p * r * np.log(p)).sum()

    assert loss(np.array([0.9, 0.1]), np.array([0, 1])) < loss(np.array([0.7, 0.3]), np.array([0, 1]))


def test_baselines_and_advantages():
    """A baseline keeps the mean gradient, 27.5625 falls to 0, b* is the best constant, leave-one-out."""
    pi, reward = np.array([0.5, 0.5]), np.array([10.0, 11.0])
    score = np.eye(2) - pi
    assert np.allclose(pi @ score, 0)
    plain = reward * score[:, 0]
    assert np.allclose(plain, [5, -5.5])
    assert np.isclose(pi @ plain, -0.25) and np.isclose(pi @ plain**2 - (pi @ plain) ** 2, 27.5625)
    assert np.allclose((reward - 10.5) * score[:, 0], -0.25)
    # positive rewards push every sampled answer up: its own logit gets R·(1 − π) > 0
    assert (reward * np.diag(score) > 0).all()
    # the best constant baseline, by brute force, on an uneven policy
    pi, reward = softmax([1.0, 0.0, -2.0]), np.array([1.0, 3.0, 9.0])
    score = np.eye(3) - pi
    norms = (score**2).sum(1)
    best = (pi @ (reward * norms)) / (pi @ norms)

    def variance(b):
        g = (reward - b)[:, None] * score
        return (pi @ g**2 - (pi @ g) ** 2).sum()

    assert np.isclose(minimize_scalar(variance).x, best, atol=1e-5)
    assert variance(best) < variance(pi @ reward) and abs(best - pi @ reward) > 0.1
    for b in (0.0, 4.0):
        assert np.allclose(pi @ ((reward - b)[:, None] * score), pi @ (reward[:, None] * score))
    # subtracting the scored answer's own reward wipes the gradient out
    assert np.allclose(pi @ ((reward - reward)[:, None] * score), 0)
    assert not np.allclose(pi @ (reward[:, None] * score), 0)
    # Token level, exactly, over all texts of two tokens: a baseline of the prefix leaves the gradient alone;
    # one of the scored token, or of what follows it, does not.
    rng = np.random.default_rng(0)
    prefixes = rng.normal(size=(1 + 3, 3))  # the first token's logits, then the second's after each first
    rewards, tables = rng.normal(size=(3, 3)), rng.normal(size=(2, 3, 3))

    def token_gradient(first, second):
        """Σ over texts of P(text)·Σ_t (R − b_t)·∇log π(y_t|prefix), for two functions b_t(y_1, y_2)."""
        probability, total = softmax(prefixes, axis=1), np.zeros((4, 3))
        for a, c in itertools.product(range(3), repeat=2):
            weight = probability[0, a] * probability[1 + a, c]
            total[0] += weight * (rewards[a, c] - first(a, c)) * (np.eye(3)[a] - probability[0])
            total[1 + a] += weight * (rewards[a, c] - second(a, c)) * (np.eye(3)[c] - probability[1 + a])
        return total

    def expected(z):
        p = softmax(z.reshape(4, 3), axis=1)
        return float((p[0][:, None] * p[1:] * rewards).sum())

    true = differences(expected, prefixes.ravel()).reshape(4, 3)
    assert np.allclose(token_gradient(lambda a, c: 0.0, lambda a, c: 0.0), true)
    assert np.allclose(token_gradient(lambda a, c: 0.7, lambda a, c: tables[0, a, 0]), true)
    for first, second in (
        (lambda a, c: tables[0, a, 0], lambda a, c: 0.0),  # of the first token, when that is scored
        (lambda a, c: tables[0, 0, c], lambda a, c: 0.0),  # of the token after it
        (lambda a, c: 0.7, lambda a, c: tables[1, a, c]),  # of the second token, when that is scored
    ):
        assert not np.allclose(token_gradient(first, second), true, atol=0.01)
    # leave one out
    reward = np.array([1.0, 2.0, 6.0])
    others = (reward.sum() - reward) / 2
    assert np.allclose(others, [4, 3.5, 1.5]) and np.allclose(reward - others, [-3, -1.5, 4.5])
    same = np.full(4, 7.0)
    assert np.allclose(same - (same.sum() - same) / 3, 0)
    # leave-one-out is unbiased: exact expectation over all pairs of answers, k = 2
    pi, reward = softmax([1.0, 0.0, -2.0]), np.array([1.0, 3.0, 9.0])
    mean = sum(
        pi[i] * pi[j] * 0.5 * ((reward[i] - reward[j]) * score[i] + (reward[j] - reward[i]) * score[j])
        for i, j in itertools.product(range(3), repeat=2)
    )
    assert np.allclose(mean, pi @ (reward[:, None] * score))


def gae_sum(rewards, values, gamma, lam):
    """Errors and advantages straight from the definition (the value after the end is 0)."""
    following = list(values[1:]) + [0.0]
    delta = [r + gamma * after - v for r, after, v in zip(rewards, following, values)]
    count = len(delta)
    return delta, [sum((gamma * lam) ** k * delta[t + k] for k in range(count - t)) for t in range(count)]


def test_generalized_advantage_estimation():
    """The sum and the recursion agree; errors 0.1, 0.2, 0.2; advantages 0.25, 0.3, 0.2; λ = 0 and λ = 1."""
    delta, advantage = gae_sum([0, 0, 1], [0.5, 0.6, 0.8], 1.0, 0.5)
    assert np.allclose(delta, [0.1, 0.2, 0.2]) and np.allclose(advantage, [0.25, 0.3, 0.2])
    assert np.isclose(gae_sum([0, 0, 1], [0.5, 0.6, 0.8], 1.0, 1.0)[1][0], 0.5)
    rewards, values, gamma = [0.3, -1.0, 2.0, 0.5], [1.0, 0.2, -0.4, 0.9], 0.9
    delta, advantage = gae_sum(rewards, values, gamma, 0.0)
    assert np.allclose(delta, advantage)
    _, advantage = gae_sum(rewards, values, gamma, 1.0)
    returns = [sum(gamma**k * r for k, r in enumerate(rewards[t:])) for t in range(4)]
    assert np.allclose(advantage, np.array(returns) - values)
    delta, advantage = gae_sum(rewards, values, gamma, 0.7)
    running = 0.0
    for t in reversed(range(4)):
        running = delta[t] + gamma * 0.7 * running
        assert np.isclose(running, advantage[t])
    # λ = 1 ignores an error of the later values, λ = 0 inherits it; noisy late rewards: the other way round
    wrong = [0.5, 1.6, 0.8]
    assert np.isclose(gae_sum([0, 0, 1], wrong, 1.0, 1.0)[1][0], 0.5)
    assert np.isclose(gae_sum([0, 0, 1], wrong, 1.0, 0.0)[1][0], 1.1)
    first = [[gae_sum([0, 0, r], [0.5, 0.6, 0.8], 1.0, lam)[1][0] for r in (0, 2)] for lam in (0, 1)]
    assert np.var(first[0]) == 0 and np.var(first[1]) == 1


def test_ppo():
    """1.2 and −1.5 at ratio 1.5; where the gradient vanishes; a lower bound; a ratio may leave the range."""

    def objective(ratio, advantage, eps=0.2):
        return min(ratio * advantage, float(np.clip(ratio, 1 - eps, 1 + eps)) * advantage)

    assert objective(1.5, 1) == 1.2 and objective(1.5, -1) == -1.5

    def slope(r, a):
        return (objective(r + 1e-6, a) - objective(r - 1e-6, a)) / 2e-6

    for r in np.linspace(0.05, 2.5, 50):
        if min(abs(r - 0.8), abs(r - 1.2)) > 1e-3:
            assert np.isclose(slope(r, 1.0), 0.0 if r > 1.2 else 1.0)
            assert np.isclose(slope(r, -1.0), 0.0 if r < 0.8 else -1.0)
        for a in (-2.0, -0.5, 0.0, 1.0, 3.0):
            assert objective(r, a) <= r * a
    # momentum carries the ratio beyond 1 + ε although the gradient there is zero
    s, velocity = torch.zeros(2, requires_grad=True), torch.zeros(2)
    for step in range(8):
        ratio = s.softmax(0)[0] / 0.5
        if step == 0:
            assert ratio.item() == 1.0
        loss = -torch.minimum(ratio, ratio.clamp(0.8, 1.2))
        velocity = 0.9 * velocity + torch.autograd.grad(loss, s)[0]
        s = (s - 0.3 * velocity).detach().requires_grad_()
    assert s.softmax(0)[0].item() / 0.5 > 1.25


def test_kl_divergence():
    """0.5108 and 0.3681; zero only for equals; infinite; modes; chain rule; kl_div's arguments."""
    p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    assert round(kl(p, q), 4) == 0.5108 and round(kl(q, p), 4) == 0.3681 and kl(p, p) == 0
    rng = np.random.default_rng(0)
    for a, b in rng.dirichlet(np.ones(4), size=(50, 2)):
        assert kl(a, b) > 0
        tp, tq = torch.tensor(a)[None], torch.tensor(b)[None]
        torch_kl = torch.nn.functional.kl_div(tq.log(), tp, reduction="batchmean").item()
        assert np.isclose(torch_kl, kl(a, b))
        assert not np.isclose(torch.nn.functional.kl_div(tq, tp, reduction="batchmean").item(), kl(a, b))
    assert kl(np.array([0.5, 0.5]), np.array([1 - 1e-300, 1e-300])) > 300
    # a bell fitted to two peaks: the reverse KL settles on one, the forward KL covers both
    x = np.linspace(-6, 6, 241)
    target = softmax(np.logaddexp(-2 * (x - 3) ** 2, -2 * (x + 3) ** 2 - 0.3))

    def bell(z):
        return softmax(-((x - z[0]) ** 2) / (2 * np.exp(2 * z[1]))) + 1e-300

    target = target + 1e-300
    options = {"method": "Nelder-Mead", "options": {"maxiter": 400}}
    reverse = minimize(lambda z: kl(bell(z), target), [1.0, 0.0], **options).x
    forward = minimize(lambda z: kl(target, bell(z)), [1.0, 0.0], **options).x
    assert abs(reverse[0] - 3) < 0.3 and np.exp(reverse[1]) < 1
    assert abs(forward[0]) < 1 and np.exp(forward[1]) > 2
    # two tokens: sequence KL = first token's KL + expected KL of the second along the first model's prefixes
    first = rng.dirichlet(np.ones(3), size=2)
    second = rng.dirichlet(np.ones(3), size=(2, 3))
    joint = [(first[m][:, None] * second[m]).ravel() for m in (0, 1)]
    chain = kl(*first) + sum(first[0][i] * kl(second[0][i], second[1][i]) for i in range(3))
    assert np.isclose(kl(*joint), chain)


def test_kl_estimators():
    """Worked values of k1, k2, k3; bias and sign; expected gradients zero, reverse, forward; e^u."""
    pi, ref = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    u = np.log(ref / pi)
    k1, k2, k3 = -u, u**2 / 2, np.exp(u) - u - 1
    assert np.allclose(k1.round(4), [-0.5878, 1.6094]) and np.allclose(k3.round(4), [0.2122, 0.8094])
    assert round(pi @ k1, 4) == round(pi @ k3, 4) == 0.5108 == round(kl(pi, ref), 4)
    assert round(pi @ k2, 4) == 0.7339 and np.isclose(pi @ np.exp(u), 1)
    grid = np.linspace(-20, 20, 401)
    assert (np.exp(grid) - grid - 1 >= -1e-12).all()
    assert math.exp(20) - 20 - 1 > 1e8  # one token with log π_ref − log π_θ = 20
    # expected gradients on samples from the policy, against finite differences of both KLs
    s, ref = np.array([0.4, -0.3, 0.1]), np.array([0.6, 0.1, 0.3])
    logits = torch.tensor(s, requires_grad=True)
    logp = logits.log_softmax(0)
    weight, u = logp.exp().detach(), torch.tensor(ref).log() - logp
    gradients = [
        torch.autograd.grad((weight * k).sum(), logits, retain_graph=True)[0].numpy()
        for k in (-u, u**2 / 2, u.exp() - u - 1)
    ]
    assert np.allclose(gradients[0], 0)
    assert np.allclose(gradients[1], differences(lambda z: kl(softmax(z), ref), s), atol=1e-8)
    assert np.allclose(gradients[2], differences(lambda z: kl(ref, softmax(z)), s), atol=1e-8)
    # in the reward, k1 is multiplied by ∇log π, and the policy gradient follows the reverse KL
    pi = softmax(s)
    assert np.allclose(pi @ (np.log(pi / ref)[:, None] * (np.eye(3) - pi)), gradients[1])


def test_bradley_terry():
    """0.731, 0.881, two forms of the probability, concavity, wins minus expected wins, endless winners."""
    assert round(expit(1), 3) == 0.731 and expit(0) == 0.5 and round(expit(2), 3) == 0.881
    for a, b in itertools.product((-1.0, 0.0, 2.5), repeat=2):
        assert np.isclose(expit(a - b), math.exp(a) / (math.exp(a) + math.exp(b)))
        assert np.isclose(expit((a + 7) - (b + 7)), expit(a - b))
    wins = np.array([[0, 8, 9], [2, 0, 7], [1, 3, 0]], dtype=float)
    games = wins + wins.T

    def log_likelihood(s, table=wins):
        return float((table * np.log(expit(s[:, None] - s[None, :]))).sum())

    s = np.array([0.5, -0.2, 0.1])
    expected = (games * expit(s[:, None] - s[None, :])).sum(1)
    assert np.allclose(differences(log_likelihood, s), wins.sum(1) - expected, atol=1e-6)
    rng = np.random.default_rng(0)
    for a, b in rng.normal(size=(30, 2, 3)):
        assert log_likelihood((a + b) / 2) >= (log_likelihood(a) + log_likelihood(b)) / 2
    p = np.ones(3)
    for _ in range(500):
        p = wins.sum(1) / (games / (p[:, None] + p)).sum(1)
        p /= p.sum()
    fitted = np.log(p)
    best = minimize(lambda z: -log_likelihood(z - z.mean()), np.zeros(3)).x
    assert np.allclose(best - best.mean(), fitted - fitted.mean(), atol=1e-4)
    # a winner of everything: the likelihood rises for ever; groups never compared: their offset is free
    always = np.array([[0, 5, 5], [0, 0, 3], [0, 2, 0]], dtype=float)
    rising = [log_likelihood(np.array([z, 0.3, 0.0]), always) for z in (1.0, 5.0, 10.0, 20.0)]
    assert rising == sorted(rising) and len(set(rising)) == 4
    apart = np.zeros((4, 4))
    apart[0, 1], apart[1, 0], apart[2, 3], apart[3, 2] = 3, 1, 2, 2
    z = np.array([0.4, -0.4, 0.0, 0.2])
    assert np.isclose(log_likelihood(z, apart), log_likelihood(z + np.array([0, 0, 9, 9]), apart))


def test_reward_models():
    """log 2, 0.313, −0.269 by finite differences; the loss ignores c(x); 6 pairs from 4; last real token."""

    def loss(z):
        return -math.log(expit(z[0] - z[1]))

    assert round(loss([0, 0]), 3) == 0.693 == round(math.log(2), 3)
    assert round(loss([1.5, 0.5]), 3) == 0.313
    gradient = differences(loss, [1.5, 0.5])
    assert round(gradient[0], 3) == -0.269 and np.isclose(gradient[0], -(1 - expit(1)))
    for gap in (0, 1, 5):
        slope = f"{differences(loss, [gap, 0])[0]:.3f}".rstrip("0").replace("-", "−")
        assert (
            f"gap {gap}: loss {loss([gap, 0]):.3f}, slope {slope}." in texts("reward-models")["mathematics"]
        )
    assert np.isclose(loss([1.5 + 40, 0.5 + 40]), loss([1.5, 0.5]))
    assert len(list(itertools.combinations(range(4), 2))) == 4 * 3 // 2 == 6
    assert all(math.comb(k, 2) == k * (k - 1) // 2 for k in range(2, 12))
    # the last real token in a right-padded batch is not the last column
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    scores = torch.arange(10.0).view(2, 5)
    last = mask.sum(1) - 1
    assert scores[torch.arange(2), last].tolist() == [2.0, 9.0] != scores[:, -1].tolist()
    # a constant added to every score changes no pair
    chosen, rejected = torch.tensor([1.0, 0.2]), torch.tensor([0.5, 0.9])
    assert ((chosen > rejected) == (chosen - 3 > rejected - 3)).all()


def test_rlhf_pipeline():
    """Token rewards −0.05, 0.02, 1.93 with sum 1.9; in the mean they are reward minus β·KL."""
    r, beta, ratio = 2.0, 0.1, np.array([0.5, -0.2, 0.7])
    tokens = -beta * ratio
    tokens[-1] += r
    assert np.allclose(tokens, [-0.05, 0.02, 1.93]) and np.isclose(tokens.sum(), 1.9)
    assert np.isclose(ratio.sum(), 1.0) and np.isclose(r - beta * ratio.sum(), 1.9)
    assert tokens[1] > 0 > ratio[1]
    # all texts of two tokens: the expected sum of token rewards is E[r] − β·KL
    rng = np.random.default_rng(0)
    first, second = rng.dirichlet(np.ones(3), size=2), rng.dirichlet(np.ones(3), size=(2, 3))
    reward = rng.normal(size=(3, 3))
    total = 0.0
    for a, b in itertools.product(range(3), repeat=2):
        probability = first[0][a] * second[0][a, b]
        earned = -beta * math.log(first[0][a] / first[1][a])
        earned += -beta * math.log(second[0][a, b] / second[1][a, b]) + reward[a, b]
        total += probability * earned
    joint = [first[m][:, None] * second[m] for m in (0, 1)]
    assert np.isclose(total, (joint[0] * reward).sum() - beta * kl(joint[0].ravel(), joint[1].ravel()))


def test_kl_regularised_optimum():
    """Closed form against an optimiser, β·log Z, 0.731, 0.881, inversion, resampling, best-of-n ≤ bound."""

    def optimum(ref, reward, beta):
        return softmax(np.log(ref) + reward / beta)

    ref, reward = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    assert np.allclose(optimum(ref, reward, 1.0).round(3), [0.731, 0.269])
    assert np.allclose(optimum(ref, reward, 0.5).round(3), [0.881, 0.119])
    rng = np.random.default_rng(0)
    ref, reward, beta = rng.dirichlet(np.ones(5)), rng.normal(size=5), 0.7
    star = optimum(ref, reward, beta)
    log_z = logsumexp(reward / beta, b=ref)
    assert np.allclose(star, ref * np.exp(reward / beta) / np.exp(log_z))

    def objective(p):
        return p @ reward - beta * kl(p, ref)

    assert np.isclose(objective(star), beta * log_z)
    found = minimize(lambda z: -objective(softmax(z)), np.zeros(5)).x
    assert np.allclose(softmax(found), star, atol=1e-4)
    for p in rng.dirichlet(np.ones(5), size=50):
        assert np.isclose(objective(p), beta * log_z - beta * kl(p, star))
    assert np.allclose(beta * np.log(star / ref) + beta * log_z, reward)
    assert np.allclose(optimum(ref, 3 * reward, 3 * beta), star)
    assert optimum(ref, reward, 0.01)[reward.argmax()] > 0.999
    assert np.allclose(optimum(ref, reward, 1000.0), ref, atol=0.01)
    with np.errstate(divide="ignore"):
        assert (
            optimum(np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.0, 99.0]), 1.0)[2] == 0
        )  # silent stays silent
    # a reward difference of β multiplies the odds by e
    odds = optimum(np.array([0.4, 0.6]), np.array([beta, 0.0]), beta)
    assert np.isclose(odds[0] / odds[1] / (0.4 / 0.6), math.e) and round(math.e, 3) == 2.718
    # resampling reference draws with weights exp(r/β)
    draws = rng.choice(5, size=200_000, p=ref)
    weights = np.exp(reward[draws] / beta)
    assert np.allclose(np.bincount(draws, weights, minlength=5) / weights.sum(), star, atol=0.01)
    # best of n, exactly: P(best is item i) from the cumulative reference, items sorted by reward
    assert round(math.log(4) - 3 / 4, 3) == 0.636
    for size, n in itertools.product((2, 5, 2000), (2, 4, 16)):
        ref = rng.dirichlet(np.full(size, 50.0))
        cumulative = np.concatenate([[0], np.cumsum(ref)])
        best = np.diff(cumulative**n)
        keep = best > 0
        divergence = float(np.sum(best[keep] * np.log(best[keep] / ref[keep])))
        bound = math.log(n) - (n - 1) / n
        assert divergence <= bound + 1e-12
        assert size < 2000 or bound - divergence < 0.01


def test_reward_hacking():
    """Shrinkage simulated (1.5), peak a/(2b) = 5, hackable unless ordered alike, lowest score."""
    rng = np.random.default_rng(0)
    v_t, v_e = 1.0, 0.5
    true = rng.normal(scale=math.sqrt(v_t), size=400_000)
    proxy = true + rng.normal(scale=math.sqrt(v_e), size=true.size)
    assert np.isclose(np.polyfit(proxy, true, 1)[0], v_t / (v_t + v_e), atol=0.01)
    near = abs(proxy - 1.5) < 0.05
    assert np.isclose(true[near].mean(), 1.5 * v_t / (v_t + v_e), atol=0.03)
    assert 3 * 1 / (1 + 1) == 1.5
    a, b = 1.0, 0.1
    assert np.isclose(minimize_scalar(lambda d: -d * (a - b * d)).x, a / (2 * b)) and a / (2 * b) == 5
    # quality first rises, then falls
    assert a - 2 * b * 1 > 0 > a - 2 * b * 9

    # One-step policies over four answers, J(π) = π·R. A move d (summing to 0) from the uniform policy hacks
    # the proxy when it raises the one mean and lowers the other; none exists if R′ = c·R + const with c > 0.
    def hack(proxy_reward, true_reward):
        p, t = proxy_reward - proxy_reward.mean(), true_reward - true_reward.mean()
        d = p / np.linalg.norm(p) - t / np.linalg.norm(t)
        return d @ p > 1e-9 and d @ t < -1e-9 and np.isclose(d.sum(), 0)

    for proxy_reward, true_reward in rng.normal(size=(100, 2, 4)):
        assert hack(proxy_reward, true_reward)
        assert not hack(2.5 * true_reward - 4, true_reward)
        moves = rng.normal(size=(50, 4))
        moves -= moves.mean(1, keepdims=True)
        assert (np.sign(moves @ (2.5 * true_reward - 4)) == np.sign(moves @ true_reward)).all()
        constant = moves @ np.full(4, 3.0)
        assert np.allclose(constant, 0)  # a constant proxy never rises, so it cannot be hacked
    # fooling one of three reward models does not raise the lowest score
    scores = np.array([0.2, 0.3, 0.1])
    fooled = scores + np.array([0, 9, 0])
    assert fooled.min() == scores.min() and fooled.mean() > scores.mean()


def test_supervised_fine_tuning():
    """Masked loss 1.0 and 2.5, token and answer averages 1.8 and 1.5, forward KL, −100."""
    text = texts("supervised-fine-tuning")
    mask, cost = np.array([0] * 6 + [1] * 2), np.array([3.0] * 6 + [0.5, 1.5])
    assert f"masked loss of {(mask * cost).sum() / mask.sum():.1f}" in text["mathematics"]
    assert f"it would be {cost.mean():.1f}" in text["mathematics"]
    tokens = (2 * 1.0 + 8 * 2.0) / 10
    assert f"averages are {tokens:.1f} and {(1.0 + 2.0) / 2:.1f}" in text["mathematics"]
    # the expected loss is KL(demonstrators‖model) plus the demonstrators' entropy, whatever the model
    rng = np.random.default_rng(0)
    people, *models = rng.dirichlet(np.ones(4), size=4)
    gaps = [-(people * np.log(q)).sum() - kl(people, q) for q in models]
    assert np.allclose(gaps, -(people * np.log(people)).sum())
    # −100 is cross_entropy's default for a label to skip
    labels, logits = torch.tensor([-100, 1, -100]), torch.randn(3, 5, generator=torch.manual_seed(0))
    assert "a label of −100" in text["practice"]
    assert torch.isclose(torch.nn.functional.cross_entropy(logits, labels), -logits[1].log_softmax(0)[1])


def test_verifiable_rewards():
    """17 × 23; pay 0.22 of which 0.04 = 18 % for mistakes; groups without spread 0.43 and 0.008."""
    text = texts("verifiable-rewards")
    assert f"with {17 * 23}." in text["intuition"]

    def pay(p, m, f):
        return p * (1 - m), (1 - p) * f

    right, wrong = pay(0.2, 0.1, 0.05)
    assert f"this is {right + wrong:.2f}, of which {wrong:.2f} goes" in text["mathematics"]
    assert f"{wrong / (right + wrong):.0%}".replace("%", " %") + " of the reward" in text["mathematics"]
    shares = [pay(p, 0.1, 0.05)[1] / sum(pay(p, 0.1, 0.05)) for p in np.linspace(0.01, 0.99, 50)]
    assert (np.diff(shares) < 0).all()  # the leak matters most where p is small
    alike = [p**8 + (1 - p) ** 8 for p in (0.1, 0.5)]
    assert f"is {alike[0]:.2f} at p = 0.1 but {alike[1]:.3f} at p = 0.5" in text["mathematics"]
    outcomes = itertools.product((0, 1), repeat=8)
    same = sum(math.prod(0.1 if y else 0.9 for y in group) for group in outcomes if len(set(group)) == 1)
    assert np.isclose(same, alike[0])
    grid = np.linspace(0, 1, 101)
    assert np.isclose(grid[(grid**8 + (1 - grid) ** 8).argmin()], 0.5)


def test_dapo_and_gspo():
    """Clip bounds 0.0128 and 0.012, weights 0.9 and 0.5, penalty 0.5, ratios 1.105 and 2.70."""
    text = texts("dapo-and-gspo")["mathematics"]
    assert f"up to {0.01 * 1.28:.4f} instead of {0.01 * 1.2:.3f}" in text
    assert f"a weight of {90 / 100:.1f} instead of {1 / 2:.1f}" in text

    def penalty(length, longest=20480, cache=4096):  # DAPO, Eq. 13
        return -min(max((length - (longest - cache)) / cache, 0.0), 1.0)

    assert [penalty(n) for n in (100, 16384, 20480, 30000)] == [0, 0, -1, -1]
    assert f"an answer of 18432 tokens loses {-penalty(18432)}" in text
    ratios = np.exp([0.3, -0.1, 0.1])
    s = ratios.prod() ** (1 / 3)
    assert np.isclose(s, np.exp(np.mean([0.3, -0.1, 0.1]))) and f"s = e^0.1 = {s:.3f}" in text
    assert f"multiply to {1.01**100:.2f}" in text
    # with the old policy equal to the new one (the first update on a batch) no bound and no level matters
    for low, high in ((0.2, 0.2), (0.2, 0.28), (0.0003, 0.0004)):
        token = torch.zeros(5, requires_grad=True)
        for ratio in (token.exp(), token.mean().exp().expand(5)):
            loss = torch.minimum(2.0 * ratio, 2.0 * ratio.clamp(1 - low, 1 + high)).mean()
            assert torch.allclose(torch.autograd.grad(loss, token)[0], torch.full((5,), 0.4))


def test_process_and_generative_reward_models():
    """0.405, 0.599 and 0.358, labels 0.375 and 1, σ(1.5) = 0.818, the mean verdict 0.6."""
    text = texts("process-and-generative-reward-models")["mathematics"]
    assert f"give {0.9 * 0.9 * 0.5:.3f}" in text
    assert f"ten steps of 0.95 score {0.95**10:.3f} and twenty {0.95**20:.3f}" in text
    done = [1, 1, 1] + [0] * 5
    assert f"they are {np.mean(done):.3f} and {max(done)}" in text
    yes = softmax([2.0, 0.5])[0]
    assert np.isclose(yes, expit(1.5)) and f"r = σ(1.5) = {yes:.3f}" in text
    assert f"average to {np.mean([0.9, 0.8, 0.1]):.1f}" in text
