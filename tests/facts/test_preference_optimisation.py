"""Every formula and number in data/build/topics/preference-optimisation.toml, worked through in code."""

import itertools
import math
import tomllib
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, logsumexp, softmax

GRID = np.linspace(-6, 6, 49)
FAMILY = Path(__file__).parents[2] / "data/build/topics/preference-optimisation.toml"
TOPICS = {topic["id"]: topic for topic in tomllib.loads(FAMILY.read_text(encoding="utf-8"))["topic"]}


def says(passage, *numbers):
    """Whether each number, as printed, stands in the passage called "topic-style"."""
    topic, style = passage.rsplit("-", 1)
    (text,) = (p["text"] for p in TOPICS[topic]["passage"] if p["style"] == style)
    return all(number in text for number in numbers)


def nll(z):
    """−log σ(z)."""
    return np.logaddexp(0, -np.asarray(z, dtype=float))


def slope(f, x, *more, step=1e-6):
    """Central finite difference in the first argument of f, elementwise."""
    return (f(x + step, *more) - f(x - step, *more)) / (2 * step)


def differences(f, x, step=1e-6):
    """Central finite differences of a scalar function of a vector."""
    x = np.asarray(x, dtype=float)
    return np.array([(f(x + step * e) - f(x - step * e)) / (2 * step) for e in np.eye(len(x))])


def lowest(f, *more):
    """Where f is lowest in its first argument."""
    return minimize_scalar(f, args=more, bounds=(-60, 60), method="bounded", options={"xatol": 1e-9}).x


def margin(logits, reference, better, worse):
    """Δ of a softmax policy over a few answers."""
    ratio = log_softmax(logits) - log_softmax(reference)
    return ratio[better] - ratio[worse]


def test_dpo():
    """Loss, its gradient by finite differences, log 2 at the start, Z(x) cancels; 0.5 and 0.474."""
    assert np.isclose(nll(0), math.log(2)) and round(float(nll(0)), 3) == 0.693
    assert 3 - (-2) == 5 and round(float(nll(0.1 * 5)), 3) == 0.474
    logits, reference, beta = np.array([0.4, -0.7, 1.1]), np.array([0.1, 0.3, -0.2]), 0.7
    gradient = differences(lambda s: nll(beta * margin(s, reference, 0, 2)), logits)
    delta = margin(logits, reference, 0, 2)
    scores = np.eye(3) - softmax(logits)  # row y: ∇log π(y)
    assert np.allclose(gradient, -beta * expit(-beta * delta) * (scores[0] - scores[2]), atol=1e-8)
    assert np.isclose(nll(beta * margin(reference, reference, 0, 2)), math.log(2))
    # well separated pairs hardly push
    assert beta * expit(-beta * 20) < 1e-5
    # β·ρ(y) + β·log Z is the reward whose KL-regularised optimum the policy is, and Z cancels
    reward = np.array([1.0, -0.5, 0.3])
    log_z = logsumexp(log_softmax(reference) + reward / beta)
    ratio = log_softmax(reference) + reward / beta - log_z - log_softmax(reference)
    assert np.allclose(beta * ratio + beta * log_z, reward)
    assert np.isclose(expit(beta * (ratio[0] - ratio[1])), expit(reward[0] - reward[1]))
    # the code's numbers: the preferred answer is the less likely one and still ahead by 5
    assert (-40 + 43) - (-38 + 36) == 5
    # both log-probabilities may fall while the margin grows
    before, after = np.log([0.4, 0.4, 0.2]), np.log([0.3, 0.1, 0.6])
    assert after[0] < before[0] and margin(after, before, 0, 1) > 0


def test_beta_in_dpo():
    """Slope, curvature bound, Δ* = logit(p)/β with 13.86 and 1.39, no optimum at p = 1, scale of averages."""
    for beta in (0.1, 1.0, 3.0):
        found = slope(lambda d, b: nll(b * d), GRID, beta)
        assert np.allclose(found, -beta * expit(-beta * GRID), atol=1e-7)
        curvature = slope(lambda d, b: -b * expit(-b * d), GRID, beta)
        assert (curvature <= beta**2 / 4 + 1e-6).all() and np.isclose(curvature.max(), beta**2 / 4)
        assert np.isclose(slope(lambda d, b: nll(b * d), 0.0, beta), -beta / 2)

    def average(d, p, beta):
        return p * nll(beta * d) + (1 - p) * nll(-beta * d)

    for beta, best in ((0.1, 13.86), (1.0, 1.39)):
        found = lowest(average, 0.8, beta)
        assert np.isclose(found, logit(0.8) / beta, atol=1e-4) and round(found, 2) == best
        # rescaling the loss keeps its optimum
        assert np.isclose(lowest(lambda d, b: 7 * average(d, 0.8, b), beta), found, atol=1e-4)
    # a stiff β starts harder and stops earlier: beyond its optimum it pulls back while the other still pushes
    assert slope(average, 0.0, 0.8, 1.0) < slope(average, 0.0, 0.8, 0.1) < 0
    assert slope(average, 2.0, 0.8, 1.0) > 0 > slope(average, 2.0, 0.8, 0.1)
    assert np.isclose(logit(0.8), math.log(0.8 / 0.2))
    # β = 0: log 2 for every policy; p = 1: falling for ever
    assert np.allclose(nll(0 * GRID), math.log(2))
    for beta in (0.01, 1.0):
        assert (np.diff(nll(beta * np.linspace(0, 300, 50))) < 0).all()
    # averaging over n tokens divides the margin by n, so that n times the β gives the same argument
    tokens = np.array([-1.0, -2.0, -0.5, -2.5])
    assert np.isclose(0.1 * tokens.sum(), 0.1 * len(tokens) * tokens.mean())


def test_ipo():
    """Target 1/(2τ) = 5, mean optimum (p − ½)/τ = 0, 3, 5, first loss 25, linear slope, NaN of empty rows."""
    tau = 0.1
    target = 1 / (2 * tau)
    assert target == 5 and np.isclose(target**2, 1 / (4 * tau**2)) and np.isclose(target**2, 25)
    for p, best in ((0.5, 0), (0.8, 3), (1.0, 5)):
        found = lowest(lambda d, p: p * (d - target) ** 2 + (1 - p) * (-d - target) ** 2, p)
        assert np.allclose([found, (p - 0.5) / tau], best, atol=1e-6)
    found = slope(lambda d: (d - target) ** 2, GRID)
    assert np.allclose(found, 2 * (GRID - target), atol=1e-6)
    assert slope(lambda d: (d - target) ** 2, 7.0) > 0 > slope(nll, 7.0)  # IPO cools, DPO only heats
    assert logit(0.999) > logit(0.99) > logit(0.9) and np.isinf(logit(1.0))
    assert (1 - 0.5) / tau == 5
    # Δ* is the same for the code's ten labels: 8 wins, 2 losses
    label = np.array([1] * 8 + [-1] * 2)
    assert np.isclose(lowest(lambda d: ((label * d - 5) ** 2).mean()), 3)
    with np.errstate(invalid="ignore"):
        assert np.isnan(np.float64(0) / np.float64(0))  # an average over no token
    assert 0.0 / max(0, 1) == 0  # clamped as in TRL


def test_label_noise_and_robust_dpo():
    """Optimum 2.197 of cDPO, unbiasedness of robust DPO (−0.123, 2.377, 0.127), slope −0.125, 18 % → 10 %."""
    e = 0.1

    def conservative(z):
        return (1 - e) * nll(z) + e * nll(-z)

    def robust(z):
        return ((1 - e) * nll(z) - e * nll(-z)) / (1 - 2 * e)

    assert round(math.log((1 - e) / e), 3) == 2.197
    assert np.isclose(lowest(conservative), math.log((1 - e) / e), atol=1e-4)
    assert slope(conservative, 3.0) > 0 > slope(conservative, 1.0)
    assert conservative(GRID).min() > 0  # bounded below
    assert round(float(robust(2)), 3) == -0.123 and round(float(robust(-2)), 3) == 2.377
    assert round(0.9 * -0.123 + 0.1 * 2.377, 3) == 0.127 == round(float(nll(2)), 3)
    for e in (0.05, 0.1, 0.3):
        assert np.allclose((1 - e) * robust(GRID) + e * robust(-GRID), nll(GRID))
    e = 0.1
    assert np.isclose(slope(robust, 40.0), -e / (1 - 2 * e)) and np.isclose(-e / (1 - 2 * e), -0.125)
    assert robust(1e4) < -1000 and (slope(robust, GRID) < 0).all()
    # ε = ½ would divide by zero; flips at random disagree with probability 2ε(1 − ε)
    assert 1 - 2 * 0.5 == 0
    flips = {(a, b): (e if a else 1 - e) * (e if b else 1 - e) for a in (0, 1) for b in (0, 1)}
    assert np.isclose(flips[0, 1] + flips[1, 0], 2 * e * (1 - e)) and np.isclose(2 * e * (1 - e), 0.18)
    # plain DPO pushes hardest where the policy disagrees
    assert (np.diff(expit(-GRID)) < 0).all()


def test_generalized_preference_optimization():
    """Convex and falling at zero, IPO's factor β² at τ = β/2, the slopes at ±3, the values at zero."""
    family = {
        "logistic": nll,
        "hinge": lambda z: np.maximum(0, 1 - z),
        "square": lambda z: (z - 1) ** 2,
        "exponential": lambda z: np.exp(-z),
        "squared hinge": lambda z: np.maximum(0, 1 - z) ** 2,
    }
    for f in family.values():
        assert (np.diff(f(GRID), 2) > -1e-9).all() and slope(f, 0.0) < 0
    main = [family[k] for k in ("logistic", "hinge", "square", "exponential")]
    assert [round(float(slope(f, 3.0)), 3) + 0.0 for f in main] == [-0.047, 0, 4, -0.05]
    assert [round(float(slope(f, -3.0)), 3) for f in main] == [-0.953, -1, -8, -20.086]
    assert [round(float(f(0.0)), 3) for f in main] == [0.693, 1, 1, 1]
    for beta in (0.1, 0.5, 2.0):
        tau = beta / 2
        assert np.allclose((beta * GRID - 1) ** 2, beta**2 * (GRID - 1 / (2 * tau)) ** 2)
    # bounded slopes: logistic and hinge; the others grow
    far = [abs(float(slope(f, -30.0))) for f in main]
    assert max(far[:2]) < 1.0001 and min(far[2:]) > 60
    # once the margin is wide: hinge forgets, logistic pushes on, square pulls back
    assert slope(family["hinge"], 2.0) == 0 > slope(nll, 2.0) and slope(family["square"], 2.0) > 0
    # log(1 + e^(−z)) is −log σ(z)
    assert np.allclose(np.log(1 + np.exp(-GRID)), -np.log(expit(GRID)))


def test_group_relative_policy_optimization():
    """Advantages ±1.2247 and ±1, ±1 for two answers, √((1 − s)/s), sum zero, zero loss at r = 1."""

    def advantages(rewards, ddof=0):
        r = np.asarray(rewards, dtype=float)
        return (r - r.mean()) / r.std(ddof=ddof)

    assert np.allclose(advantages([3, 2, 1]), [1.2247, 0, -1.2247], atol=1e-4)
    assert np.allclose(advantages([3, 2, 1], ddof=1), [1, 0, -1])
    for gap in (0.01, 1.0, 50.0):
        assert np.allclose(advantages([gap, 0]), [1, -1])
    for s in (0.1, 0.5, 0.9):
        group = np.array([1] * round(10 * s) + [0] * round(10 * (1 - s)))
        assert np.isclose(advantages(group)[0], math.sqrt((1 - s) / s))
    assert np.isclose(math.sqrt(0.9 / 0.1), 3)
    assert says("group-relative-policy-optimization-mathematics", f"{math.sqrt(0.1 / 0.9):.2f} for s = 0.9")
    a = advantages([0.2, 1.5, -3, 4])
    assert np.isclose(a.sum(), 0)
    # at r = 1 and π = π_ref the objective is the mean advantage, zero; its gradient is not
    lengths, eps = [3, 7, 2, 5], 0.2

    def objective(log_ratio):
        r = np.exp(log_ratio)
        terms = np.minimum(r * a, np.clip(r, 1 - eps, 1 + eps) * a)
        return np.mean([np.mean([t] * n) for t, n in zip(terms, lengths)])

    assert np.isclose(objective(np.zeros(4)), 0)
    assert np.allclose(differences(objective, np.zeros(4)), a / 4, atol=1e-6)
    assert abs(np.repeat(a, lengths).mean()) > 0.1  # averaged over all tokens it is not zero
    # k3 is an unbiased estimate of the KL divergence under the policy
    pi, ref = softmax([0.3, -1.0, 0.5]), softmax([0.0, 0.2, -0.4])
    u = np.log(ref / pi)
    assert np.isclose(pi @ (np.exp(u) - u - 1), pi @ np.log(pi / ref))
    # a split group meets other averages; equal rewards can have a spread that is not exactly zero
    assert np.mean([3, 2]) != np.mean([3, 2, 1])
    same = np.array([0.1, 0.1, 0.1])
    assert np.ptp(same) == 0 and same.std() < 1e-15


def test_preference_strength():
    """Δ* = logit(p)/h with 21.97 and 2.20, crossing at 3.12, swapped pair, policy gradient, weights."""
    for h, best in ((0.1, 21.97), (1.0, 2.20)):
        found = lowest(lambda d, h: 0.9 * nll(h * d) + 0.1 * nll(-h * d), h)
        assert np.isclose(found, logit(0.9) / h, atol=1e-4) and round(found, 2) == best
        assert np.allclose(slope(lambda d, h: nll(h * d), GRID, h), -h * expit(-h * GRID), atol=1e-7)

    def push(h, d):
        return h * expit(-h * d)

    assert push(1, 0) == 0.5 and push(0.1, 0) == 0.05
    assert push(1, 3.11) > push(0.1, 3.11) and push(1, 3.13) < push(0.1, 3.13)
    later = np.linspace(3.13, 60, 500)
    assert (push(1, later) < push(0.1, later)).all()
    # a negative strength is the swapped pair at |h|
    assert np.allclose(nll(-0.7 * GRID), nll(0.7 * -GRID))
    # at the reference: two-sample policy gradient with advantages ±h/2
    reference, h = np.array([0.1, 0.3, -0.2]), 0.8
    gradient = differences(lambda s: nll(h * margin(s, reference, 0, 2)), reference)
    scores = np.eye(3) - softmax(reference)
    assert np.allclose(-gradient, h / 2 * scores[0] - h / 2 * scores[2], atol=1e-8)
    # outside and inside the logarithm
    assert round(float(0.3 * nll(2)), 3) == 0.038 and round(float(nll(0.3 * 2)), 3) == 0.437
    weighted = lowest(lambda d: 0.3 * (0.9 * nll(d) + 0.1 * nll(-d)))
    assert np.isclose(weighted, logit(0.9), atol=1e-4)
    assert np.isclose(lowest(lambda d: 0.9 * nll(0.3 * d) + 0.1 * nll(-0.3 * d)), logit(0.9) / 0.3, atol=1e-4)
    # undetached, a larger h lowers the loss where Δ > 0; h = 0 gives no push; a tie is lowest at Δ = 0
    assert slope(lambda h: nll(h * 2.0), 0.5) < 0 and push(0, 2.0) == 0
    assert np.isclose(lowest(lambda d: 0.5 * nll(d) + 0.5 * nll(-d)), 0, atol=1e-6)


def test_offset_dpo():
    """Offsets 1.609, 0, −0.693; Δ* = (m + logit p)/β = 2.39; 2.15 and 0 if m follows the winner; log 6."""
    for gap, offset in ((5, 1.609), (1, 0), (0.5, -0.693)):
        assert round(math.log(gap), 3) == offset
    assert np.allclose(nll(0.3 * GRID - 0 * math.log(5)), nll(0.3 * GRID))  # α = 0

    def fixed(d, m, p, beta):
        return p * nll(beta * d - m) + (1 - p) * nll(m - beta * d)

    for m, p, beta in ((1, 0.8, 1), (1.6, 0.7, 0.4), (-0.5, 0.9, 2)):
        found = lowest(fixed, m, p, beta)
        assert np.isclose(found, (m + logit(p)) / beta, atol=1e-4)
    assert round(1 + float(logit(0.8)), 2) == 2.39
    for p, best in ((0.8, 2.15), (0.5, 0.0)):
        found = lowest(lambda d, p: p * nll(d - 1) + (1 - p) * nll(-d - 1), p)
        assert abs(found - best) < 0.005
    # a larger gap asks for a wider margin, a larger β for a narrower one
    assert (2 + logit(0.8)) / 1 > (1 + logit(0.8)) / 1 > (1 + logit(0.8)) / 2
    # the largest slope stays β: an offset shifts the curve only
    assert np.allclose(slope(lambda d: nll(0.5 * d - 1), GRID + 2), slope(lambda d: nll(0.5 * d), GRID))
    # the first loss is log(1 + e^m); doubling the scores adds α·log 2
    assert np.isclose(nll(0 - math.log(5)), math.log(6)) and round(math.log(6), 3) == 1.792
    for alpha, high, low in ((1, 4.0, 1.5), (0.5, 9.0, 2.0)):
        added = alpha * math.log(2 * high - 2 * low) - alpha * math.log(high - low)
        assert np.isclose(added, alpha * math.log(2))
    with np.errstate(invalid="ignore", divide="ignore"):
        assert np.isnan(np.log(-1.0)) and np.log(0.0) == -np.inf


def test_kto():
    """The losses 0.269 and 0.731, the slope λβσ(u)σ(−u) that fades on both sides, 0.5 at the start."""
    beta, z0 = 0.1, 5.0
    u = beta * (15 - z0)
    assert u == 1 and round(1 - float(expit(u)), 3) == 0.269 and round(1 - float(expit(-u)), 3) == 0.731
    rho = np.linspace(-95, 105, 401)  # z0 in the middle
    for weight, sign in ((1.0, 1), (1.7, -1)):

        def loss(r, weight=weight, sign=sign):
            return weight * (1 - expit(sign * beta * (r - z0)))

        found, argument = slope(loss, rho), beta * (rho - z0)
        assert np.allclose(found, -sign * weight * beta * expit(argument) * expit(-argument), atol=1e-7)
        assert rho[np.abs(found).argmax()] == z0 and np.abs(found[[0, -1]]).max() < 1e-4
    # far on the wrong side KTO's push vanishes and DPO's is at its largest, β
    assert beta * expit(-10) * expit(10) < 1e-5 and np.isclose(beta * expit(10), beta, rtol=1e-4)
    assert (np.diff(beta * expit(-beta * rho)) < 0).all()
    assert 1 - expit(0) == 0.5  # all log-ratios zero, hence z0 = 0
    assert max(0, np.mean([4.0, 6.0])) == 5 and max(0, np.mean([-4.0, 1.0])) == 0
    # the mean log-ratio under the policy is KL(π_θ‖π_ref)
    pi, ref = softmax([0.3, -1.0, 0.5]), softmax([0.0, 0.2, -0.4])
    assert np.isclose(pi @ (np.log(pi) - np.log(ref)), np.sum(pi * np.log(pi / ref)))


def test_simpo():
    """−1.5 against −1.8 where sums say −30 against −18, argument 0.1, loss 0.644, log 2 at the lead γ/β."""
    chosen, rejected, beta, gamma = -30 / 20, -18 / 10, 2, 0.5
    assert (chosen, rejected) == (-1.5, -1.8) and -18 > -30
    argument = beta * (chosen - rejected) - gamma
    assert np.isclose(argument, 0.1) and round(float(nll(argument)), 3) == 0.644
    lead = gamma / beta
    assert lead == 0.25 and np.isclose(nll(beta * lead - gamma), math.log(2))
    assert nll(beta * (lead + 0.01) - gamma) < math.log(2) < nll(beta * (lead - 0.01) - gamma)
    assert not np.isclose(nll(beta * 0.1 - gamma), math.log(2))  # no log 2 check
    # the gradient at one token carries 1/|y|
    tokens, other = np.array([-1.0, -2.0, -1.5, -0.5]), np.array([-2.0, -1.0])
    gradient = differences(lambda t: nll(beta * (t.mean() - other.mean()) - gamma), tokens)
    argument = beta * (tokens.mean() - other.mean()) - gamma
    assert np.allclose(gradient, -beta * expit(-argument) / len(tokens))
    # every token lowers a sum; padding in the denominator shrinks the average
    assert (np.diff(np.cumsum(tokens)) < 0).all()
    assert abs(tokens.sum() / 8) < abs(tokens.mean())
    # the code's rows: four tokens of −1.5 and two of −1.8
    assert sum([-1.5] * 4) < sum([-1.8] * 2)


def test_listwise_dpo():
    """log K!, 0.408 + 0.313 = 0.721, probabilities sum to 1, K = 2 is DPO, constants cancel, pair counts."""

    def listwise(s):
        return -sum(s[k] - logsumexp(s[k:]) for k in range(len(s)))

    assert np.isclose(listwise(np.zeros(4)), math.log(24)) and round(math.log(24), 3) == 3.178
    for size in (2, 3, 5):
        assert np.isclose(listwise(np.zeros(size)), math.log(math.factorial(size)))
    s = np.array([2.0, 1.0, 0.0])
    parts = [logsumexp(s[k:]) - s[k] for k in range(3)]
    assert [round(float(x), 3) for x in parts] == [0.408, 0.313, 0]
    assert round(float(sum(parts)), 3) == 0.721 == round(float(listwise(s)), 3)
    assert np.isclose(sum(math.exp(-listwise(s[list(o)])) for o in itertools.permutations(range(3))), 1)
    pair = np.array([0.3, -0.2])
    assert np.isclose(listwise(pair), nll(pair[0] - pair[1]))
    assert np.isclose(listwise(s + 17), listwise(s))
    # documents: ρ(d) and s_θ(d) − s_0(d) give the same loss
    rng = np.random.default_rng(0)
    scores, start = rng.normal(size=5), rng.normal(size=5)
    rho = log_softmax(scores) - log_softmax(start)
    assert np.isclose(listwise(0.3 * rho), listwise(0.3 * (scores - start)))
    assert len(list(itertools.combinations(range(5), 2))) == 5 * 4 // 2 == 10
    # the favourite only: the first term is a softmax cross-entropy
    assert np.isclose(parts[0], -log_softmax(s)[0])


def test_iterative_dpo():
    """2.09 of four stale answers, T rounds at β are one at β/T (0.731, 0.953), 18 % and 57 % mixed groups."""
    weights = np.exp([-1, 0, 1, 2])
    worth = weights.sum() ** 2 / (weights**2).sum()
    assert says("iterative-dpo-mathematics", *(f"{w:.3f}" for w in weights[[0, 2, 3]]), f"{worth:.2f}")
    assert np.isclose(np.ones(4).sum() ** 2 / 4, 4)  # fresh answers count in full

    def optimum(reference, beta):
        """Softmax policy over two answers at the minimum of DPO's expected loss, rewards 1 and 0."""
        p = expit(1.0)
        margin = lowest(lambda d: p * nll(beta * d) + (1 - p) * nll(-beta * d))
        return softmax(np.log(reference) + [margin, 0])

    start = np.array([0.5, 0.5])
    once = optimum(start, 1.0)
    thrice = optimum(optimum(once, 1.0), 1.0)
    assert np.allclose(thrice, softmax(np.log(start) + 3 * np.array([1.0, 0.0])), atol=1e-5)
    assert says("iterative-dpo-mathematics", f"{once[0]:.3f}", f"{thrice[0]:.3f}")
    mixed = [1 - 0.1**n - 0.9**n for n in (2, 8)]
    assert says("iterative-dpo-practice", *(f"{m:.0%}".replace("%", " %") for m in mixed))


def test_orpo():
    """Odds 0.667 and 0.333, penalty 0.405, 0.916 and 0.957 in all, slope 1/(1 − p), log 2 at equal odds."""

    def log_odds(log_p):
        return log_p - math.log(-math.expm1(log_p))

    good, bad = math.log(0.4), math.log(0.25)
    odds = [math.exp(log_odds(x)) for x in (good, bad)]
    assert np.isclose(odds[0] / odds[1], 2)
    penalty = float(nll(log_odds(good) - log_odds(bad)))
    shown = [*odds, penalty, -good, -good + 0.1 * penalty]
    assert says("orpo-mathematics", *(f"{x:.3f}" for x in shown))
    for p, times in ((0.25, "1.33 times"), (0.9, "10 times")):
        found = float(slope(np.vectorize(log_odds), math.log(p)))
        assert np.isclose(found, 1 / (1 - p), rtol=1e-5)
        assert f"{found:.3g} times" == times and says("orpo-mathematics", times)
    assert round(float(nll(0)), 3) == 0.693 and says("orpo-practice", "0.693")
    # summed over tokens p is tiny: the odds ratio is the ratio of probabilities
    assert np.isclose(log_odds(-30) - log_odds(-32), 2, atol=1e-12)
    # the direct form rounds to zero near p = 1
    assert 1 - np.exp(np.float32(-1e-9)) == 0 and math.isfinite(log_odds(-1e-9))


def test_kto_from_thumbs():
    """44 % of thumbs up, 81 % after silence, λ_U 9 to 6.75, and six pairs of two ups and three downs."""
    content, up, down = 0.8, 0.02, 0.1
    thumbs_up, thumbs_down = content * up, (1 - content) * down
    silent = content * (1 - up), content * (1 - up) + (1 - content) * (1 - down)
    assert says("kto-from-thumbs-mathematics", f"{thumbs_up:.3f}/({thumbs_up:.3f} + {thumbs_down:.3f})")
    assert says("kto-from-thumbs-mathematics", f"{silent[0]:.3f}/{silent[1]:.3f}")
    for share in (thumbs_up / (thumbs_up + thumbs_down), silent[0] / silent[1], content):
        assert says("kto-from-thumbs-mathematics", f"{100 * share:.0f} %")
    for ratio, weight in ((1, 9), (4 / 3, 6.75)):
        assert np.isclose(900 * 1 / (100 * weight), ratio)
        assert says("kto-from-thumbs-mathematics", str(weight))
    pairs = list(itertools.product("ab", "cde"))
    assert (
        len(pairs) == 6
        and len({a for pair in pairs for a in pair}) == 5
        and says("kto-from-thumbs-practice", "1/6")
    )
