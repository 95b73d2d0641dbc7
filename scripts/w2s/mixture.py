"""Weak-to-strong generalization in a mixture of linear concepts (paper B's theory; docs/theory.md).

The strong model before fine-tuning (*source* P) answers y | x ~ sum_k alpha_k N(beta_k' x, sigma^2); the *target* Q
answers N(beta_Q' x, sigma^2), where beta_Q is the concept k* = 0 or, for what happens outside of the convex hull, a
point beside it. A *weak teacher* labels with y = (beta_Q + delta)' x + noise: biased (delta is not 0, the noise is
sigma) or noisy (delta is 0, the noise is larger). Inputs have mean 0 and identity covariance, so that the excess risk of
a linear predictor b, its mean squared distance to E_Q[y | x], is ||b - beta_Q||^2.

*Naive fine-tuning* is least squares on weak labels with a pull eta towards the source's mean beta_P. *Refinement* lets
the source answer with n_ICL weak examples before it, by exact Bayesian inference on the concept, and fits its answers.

The closed forms and the bound are derived in docs/theory.md from this model; their constants are ours and not the paper's.

Shapes: K concepts, d dimensions of the inputs, B blocks. An eta is written as pull t = eta / (1 + eta), 0 to 1, so that
the source itself (eta infinite) is no special case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from w2s.errors import ConfigError

GAUSSIAN, UNIFORM = "gaussian", "uniform"
INPUTS = (GAUSSIAN, UNIFORM)


@dataclass(frozen=True)
class Mixture:
    """Source and target; concept 0 is the target's.

    Attributes:
        concepts: unit vectors, (K, d).
        prior: weight of each concept in the source, (K,), sum 1.
        sigma: standard deviation of an answer given its concept.
        target: beta_Q, (d,).
        basis: orthonormal, (K + 2, d): what concepts, target and biases are made of.
        inputs: distribution of x: ``gaussian``, or ``uniform`` on the cube of variance 1.
    """

    concepts: np.ndarray
    prior: np.ndarray
    sigma: float
    target: np.ndarray
    basis: np.ndarray
    inputs: str

    @property
    def free(self) -> np.ndarray:
        """A unit vector orthogonal to all concepts and to the target, (d,): where a teacher's bias points."""
        return self.basis[-1]

    @property
    def source(self) -> np.ndarray:
        """beta_P, the source's mean, (d,)."""
        return self.prior @ self.concepts

    @property
    def separations(self) -> np.ndarray:
        """||beta_k - beta_k*||^2 of the other concepts, (K - 1,)."""
        return ((self.concepts[1:] - self.concepts[0]) ** 2).sum(-1)


@dataclass(frozen=True)
class Teacher:
    """A weak labeller: y = (beta_Q + bias)' x + N(0, noise^2)."""

    name: str
    kind: str
    bias: np.ndarray
    noise: float


def make_mixture(
    generator: np.random.Generator,
    *,
    dimension: int,
    concepts: int,
    sigma: float,
    inputs: str = GAUSSIAN,
    correlation: float = 0.0,
    prior: float | None = None,
    distance: float = 0.0,
) -> Mixture:
    """A mixture in random directions.

    Args:
        generator: for the directions.
        dimension: d.
        concepts: K.
        sigma: see :class:`Mixture`.
        inputs: see :class:`Mixture`.
        correlation: inner product of any two concepts; 0: orthonormal, as in the paper.
        prior: the source's weight of the target's concept, the others share the rest; None: all are equal.
        distance: how far beta_Q lies from concept 0, orthogonally to the convex hull; 0: inside, as in the paper.

    Raises:
        ConfigError: there is no such mixture.
    """
    if not 2 <= concepts <= dimension - 2:
        raise ConfigError(
            f"{concepts} concepts in {dimension} dimensions", instead="2 or more, and two dimensions to spare"
        )
    if not -1 / (concepts - 1) < correlation < 1:
        raise ConfigError(
            f"{concepts} concepts cannot all have inner product {correlation:g}",
            instead=f"above {-1 / (concepts - 1):g} and below 1",
        )
    if inputs not in INPUTS or sigma <= 0:
        raise ConfigError(
            f"inputs {inputs!r}, sigma {sigma:g}", instead=f"{' or '.join(INPUTS)}, sigma above 0"
        )
    basis = np.linalg.qr(generator.standard_normal((dimension, concepts + 2)))[0].T
    gram = np.full((concepts, concepts), correlation) + (1 - correlation) * np.eye(concepts)
    vectors = np.linalg.cholesky(gram) @ basis[:concepts]
    return Mixture(
        concepts=vectors,
        prior=_prior(concepts, prior),
        sigma=sigma,
        target=vectors[0] + distance * basis[-2],
        basis=basis,
        inputs=inputs,
    )


def _prior(concepts: int, own: float | None) -> np.ndarray:
    own = 1 / concepts if own is None else own
    if not 0 < own < 1:
        raise ConfigError(f"prior {own:g} of the target's concept", instead="above 0 and below 1")
    return np.array([own] + [(1 - own) / (concepts - 1)] * (concepts - 1))


def biased(mixture: Mixture, size: float, alignment: float = 0.0) -> Teacher:
    """A teacher with a bias of this norm.

    Args:
        mixture: what it labels.
        size: ||delta||, not negative.
        alignment: cosine of delta and the way from concept 0 to concept 1; 0: orthogonal to all concepts, as in the paper.
    """
    if size < 0 or not -1 <= alignment <= 1:
        raise ConfigError(
            f"a bias of size {size:g} and alignment {alignment:g}", instead="0 or more; -1 to 1"
        )
    way = mixture.concepts[1] - mixture.concepts[0]
    direction = alignment * way / np.linalg.norm(way) + np.sqrt(1 - alignment**2) * mixture.free
    return Teacher(f"biased-{size:g}", "biased", size * direction, mixture.sigma)


def noisy(mixture: Mixture, noise: float) -> Teacher:
    """A teacher of the right concept whose labels have this standard deviation."""
    if noise <= 0:
        raise ConfigError(f"noise {noise:g}", instead="a standard deviation above 0")
    return Teacher(f"noisy-{noise:g}", "noisy", np.zeros_like(mixture.target), noise)


# ---------------------------------------------------------------- naive fine-tuning


def risk(mixture: Mixture, predictor: np.ndarray) -> float:
    """Excess risk ||b - beta_Q||^2."""
    return float(((predictor - mixture.target) ** 2).sum())


def pull_of(eta: float) -> float:
    """t = eta / (1 + eta)."""
    return eta / (1 + eta)


def naive_risk(mixture: Mixture, teacher: Teacher, pull: float) -> float:
    """Population excess risk of naive fine-tuning; with orthogonal errors (eps_w^2 + eta^2 eps_P^2) / (1 + eta)^2."""
    return risk(mixture, (1 - pull) * (mixture.target + teacher.bias) + pull * mixture.source)


def best_pull(mixture: Mixture, teacher: Teacher, labels: int | None = None) -> float:
    """The pull of least excess risk, which nobody knows who has not the target.

    It minimises over the segment from beta_w to beta_P, without any orthogonality.

    Args:
        mixture: source and target.
        teacher: the weak labeller.
        labels: number of labels, whose variance noise^2 d / n counts as well; None: the population.
    """
    variance = teacher.noise**2 * len(mixture.target) / labels if labels else 0.0
    weak, source = teacher.bias, mixture.source - mixture.target
    width = ((source - weak) ** 2).sum() + variance
    return float(np.clip((weak @ (weak - source) + variance) / width, 0, 1)) if width > 0 else 0.0


def segment_floor(mixture: Mixture, teacher: Teacher) -> float:
    """Least population excess risk of naive fine-tuning over all eta."""
    return naive_risk(mixture, teacher, best_pull(mixture, teacher))


def orthogonal_floor(weak: float, source: float) -> float:
    """The same where the two errors are orthogonal: eps_P^2 eps_w^2 / (eps_P^2 + eps_w^2).

    Args:
        weak: eps_w^2 = ||delta||^2.
        source: eps_P^2 = ||beta_P - beta_Q||^2.
    """
    return weak * source / (weak + source) if weak + source > 0 else 0.0


@dataclass(frozen=True)
class Moments:
    """What least squares needs of labels: X'X / n, (d, d), and X'(y - X beta_Q) / n of each block, (B, d)."""

    gram: np.ndarray
    gradients: np.ndarray


def moments(mixture: Mixture, inputs: np.ndarray, labels: np.ndarray, blocks: int = 1) -> Moments:
    """Moments of labels that lie in blocks of equal size, one after the other; inputs (n, d), labels (n,)."""
    apart = (labels - inputs @ mixture.target).reshape(blocks, -1, 1)
    gradients = (inputs.reshape(blocks, apart.shape[1], -1) * apart).mean(1)
    return Moments(inputs.T @ inputs / len(inputs), gradients)


def fit_errors(mixture: Mixture, of: Moments, pull: float = 0.0) -> np.ndarray:
    """Errors b - beta_Q of a fit, by block, (B, d): their mean is the error of the fit to all labels.

    The fit minimises mean (y - b'x)^2 + eta ||b - beta_P||^2; least squares if the pull is 0.
    """
    matrix = (1 - pull) * of.gram + pull * np.eye(len(mixture.target))
    sides = (1 - pull) * of.gradients + pull * (mixture.source - mixture.target)
    return np.linalg.solve(matrix, sides.T).T


def linearised(errors: np.ndarray) -> np.ndarray:
    """Share of each block in the excess risk of the mean error, (B,), with the excess risk as mean.

    2 m_b'm - m'm, the first-order jackknife values of ||m||^2: their spread over blocks gives its variance.
    """
    mean = errors.mean(0)
    return 2 * errors @ mean - mean @ mean


# ---------------------------------------------------------------- refinement


def draw_inputs(generator: np.random.Generator, mixture: Mixture, size: tuple[int, ...]) -> np.ndarray:
    """Inputs with mean 0 and identity covariance, the last axis being theirs."""
    if mixture.inputs == GAUSSIAN:
        return generator.standard_normal(size)
    return generator.uniform(-np.sqrt(3), np.sqrt(3), size)


def weak_labels(
    generator: np.random.Generator, mixture: Mixture, teacher: Teacher, inputs: np.ndarray
) -> np.ndarray:
    """The teacher's labels of inputs (n, d), (n,)."""
    return inputs @ (mixture.target + teacher.bias) + teacher.noise * generator.standard_normal(len(inputs))


def posteriors(
    generator: np.random.Generator,
    mixture: Mixture,
    teacher: Teacher,
    shown: Sequence[int],
    contexts: int,
) -> np.ndarray:
    """Concept weights after weak examples: alpha'_k ~ alpha_k prod_i N(y_i; beta_k'x_i, sigma^2).

    Args:
        generator: for the examples.
        mixture: the model that reads them, which takes each label for one of its own.
        teacher: who labelled them.
        shown: numbers of examples n_ICL, ascending; a longer context continues the shorter one.
        contexts: number of contexts.

    Returns:
        Weights, (numbers of examples, contexts, K).
    """
    # Gaussian inputs are Gaussian in any orthonormal basis: what lies outside of the vectors' span need not be drawn.
    basis = mixture.basis if mixture.inputs == GAUSSIAN else np.eye(len(mixture.target))
    inputs = draw_inputs(generator, mixture, (contexts, shown[-1], len(basis)))
    means = inputs @ (basis @ np.column_stack([mixture.target + teacher.bias, mixture.concepts.T]))
    labels = means[..., 0] + teacher.noise * generator.standard_normal(means.shape[:-1])
    fits = -((labels[..., None] - means[..., 1:]) ** 2) / (2 * mixture.sigma**2)
    logits = np.log(mixture.prior) + fits.cumsum(1)[:, np.asarray(shown) - 1].swapaxes(0, 1)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def missing_weight(weights: np.ndarray) -> float:
    """E[1 - alpha'_k*] of weights (contexts, K), summed over the other concepts so that small ones stay exact."""
    return float(weights[:, 1:].sum(-1).mean())


def refined_risk(mixture: Mixture, weights: np.ndarray) -> float:
    """Population excess risk of a student fitted to refined labels: ||sum_k E[alpha'_k] beta_k - beta_Q||^2."""
    return risk(mixture, weights.mean(0) @ mixture.concepts)


def context_risks(mixture: Mixture, weights: np.ndarray) -> np.ndarray:
    """Excess risk of the source with each context before it, without a student, (contexts,)."""
    return ((weights @ mixture.concepts - mixture.target) ** 2).sum(-1)


def refined_labels(
    generator: np.random.Generator, mixture: Mixture, weights: np.ndarray, inputs: np.ndarray, blocks: int
) -> np.ndarray:
    """Answers of the source to inputs (n, d), each after one of the contexts of its block, (n,)."""
    n, contexts = len(inputs), len(weights)
    context = np.repeat(np.arange(blocks), n // blocks) * (contexts // blocks)
    context += generator.integers(contexts // blocks, size=n)
    chances = weights[context].cumsum(-1)
    concept = (generator.random((n, 1)) > chances[:, :-1]).sum(-1)
    means = np.take_along_axis(inputs @ mixture.concepts.T, concept[:, None], axis=1)[:, 0]
    return means + mixture.sigma * generator.standard_normal(n)


def decay(mixture: Mixture, teacher: Teacher) -> tuple[float, np.ndarray]:
    """s and rho_k of the bound E[1 - alpha'_k*] <= sum_k (alpha_k / alpha_k*)^s rho_k^n_ICL; ours, not the paper's.

    With total label variance v = noise^2 + ||delta||^2: s = min(1, sigma^2 / 2v), and for s < 1
    rho_k = (1 + ||beta_k - beta_k*||^2 / 4v)^(-1/2). It holds for Gaussian inputs, a target that is a concept, and a
    bias orthogonal to all differences of concepts; elsewhere rho_k is NaN.

    Returns:
        s and rho_k of the other concepts, (K - 1,).
    """
    variance = teacher.noise**2 + teacher.bias @ teacher.bias
    s = min(1.0, mixture.sigma**2 / (2 * variance))
    ways = mixture.concepts[1:] - mixture.concepts[0]
    if (
        mixture.inputs != GAUSSIAN
        or risk(mixture, mixture.concepts[0]) > 1e-12
        or abs(ways @ teacher.bias).max() > 1e-9
    ):
        return s, np.full(len(ways), np.nan)
    curvature = (s - s**2 * variance / mixture.sigma**2) / (2 * mixture.sigma**2)
    return s, (1 + 2 * curvature * mixture.separations) ** -0.5


def missing_bound(mixture: Mixture, teacher: Teacher, shown: int) -> float:
    """The bound of :func:`decay` after n_ICL examples, at most 1; NaN where it does not hold."""
    s, rho = decay(mixture, teacher)
    return float(np.minimum(1.0, ((mixture.prior[1:] / mixture.prior[0]) ** s * rho**shown).sum()))


def risk_bound(mixture: Mixture, teacher: Teacher, shown: int) -> float:
    """Bound of the refined student's population excess risk: max_k ||beta_k - beta_k*||^2 times its square."""
    return float(mixture.separations.max() * missing_bound(mixture, teacher, shown) ** 2)
