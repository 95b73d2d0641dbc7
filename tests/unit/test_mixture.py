"""The simulated theory of paper B: closed forms, the bound, and what the stage writes.

Monte-Carlo tolerances: a mean over N contexts has standard error sd / sqrt(N), which is computed from the contexts
themselves; two means are compared at four standard errors of their difference. Seeds are fixed, so a test that passes
once passes always; the tolerance is what another seed, too, would meet.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import plot_mixture
import pytest
import simulate_mixture
from PIL import Image
from w2s import mixture as theory
from w2s.errors import ConfigError
from w2s.mixture import Mixture, Teacher, biased, make_mixture, noisy

SHOWN = [1, 2, 4, 8, 16, 32, 64]
CONTEXTS = 10_000
# d = 20, K = 5, sigma = 1, an independent run: 5 seeds of 2,000 contexts each.
KNOWN = {
    "biased-0.8": (
        [0.625, 0.479, 0.270, 0.0824, 0.0085, 0.00011],
        [0.707, 0.619, 0.465, 0.257, 0.082, 0.0087],
    ),
    "noisy-3": (
        [0.697, 0.622, 0.514, 0.374, 0.215, 0.085, 0.013],
        [0.747, 0.705, 0.641, 0.547, 0.415, 0.261, 0.101],
    ),
}
SMALL = [
    *("--dimension", "8", "--concepts", "3", "--contexts", "100", "--labels", "100", "1000"),
    *("--shown", "2", "8", "32", "--seeds", "1", "2", "3", "--blocks", "10"),
]


def plain(seed: int = 0, **settings) -> Mixture:
    settings = {"dimension": 20, "concepts": 5, "sigma": 1.0} | settings
    return make_mixture(np.random.default_rng(seed), **settings)


def weights_of(mixture: Mixture, teacher: Teacher, seed: int = 1, contexts: int = CONTEXTS) -> np.ndarray:
    return theory.posteriors(np.random.default_rng(seed), mixture, teacher, SHOWN, contexts)


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def missing(weights: np.ndarray) -> np.ndarray:
    return weights[:, 1:].sum(-1)


def teacher_named(mixture: Mixture, name: str) -> Teacher:
    kind, _, size = name.partition("-")
    return {"biased": biased, "noisy": noisy}[kind](mixture, float(size))


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("name", KNOWN)
def test_refinement_meets_the_known_numbers(name):
    mixture = plain()
    found = weights_of(mixture, teacher_named(mixture, name))
    for weights, known_risk, known_missing in zip(found, *KNOWN[name], strict=False):
        errors = weights @ mixture.concepts - mixture.target
        for value, known, cells in (
            (theory.refined_risk(mixture, weights), known_risk, theory.linearised(errors)),
            (theory.missing_weight(weights), known_missing, missing(weights)),
        ):
            # The known run had as many contexts, hence the same error; its numbers are rounded, too.
            rounding = 0.5 * 10 ** -max(3, 2 - int(np.floor(np.log10(known))))
            assert abs(value - known) < 4 * np.sqrt(2) * standard_error(cells) + rounding


def test_naive_closed_form_is_the_papers_with_orthogonal_errors():
    mixture = plain()
    teacher = biased(mixture, 0.8)
    known = {0: 0.64, 0.1: 0.5355, 0.3: 0.4213, 1: 0.36, 3: 0.49, 10: 0.6664, 100: 0.7843}
    for eta, value in known.items():
        found = theory.naive_risk(mixture, teacher, theory.pull_of(eta))
        assert found == pytest.approx((0.64 + eta**2 * 0.8) / (1 + eta) ** 2)
        assert found == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize("name", ["biased-0.8", "noisy-3"])
@pytest.mark.parametrize("eta", [0, 0.3, 1, 10])
def test_a_fit_to_many_labels_meets_the_closed_form(name, eta):
    mixture, n = plain(), 20_000
    teacher, generator, pull = teacher_named(mixture, name), np.random.default_rng(2), theory.pull_of(eta)
    inputs = theory.draw_inputs(generator, mixture, (n, 20))
    labels = theory.weak_labels(generator, mixture, teacher, inputs)
    error = theory.fit_errors(mixture, theory.moments(mixture, inputs, labels), pull).mean(0)
    expected = theory.naive_risk(mixture, teacher, pull)
    # Each coordinate of the error has variance v / n: v d / n is added, and the mean error's part scatters.
    variance = (1 - pull) ** 2 * (teacher.noise**2 + teacher.bias @ teacher.bias + 1) / n
    assert abs(error @ error - expected - 20 * variance) < 4 * np.sqrt(
        4 * expected * variance + 40 * variance**2
    )


def test_the_floor_is_met_by_the_best_eta_and_passed_by_none():
    mixture = plain()
    teacher = biased(mixture, 0.8)
    floor = theory.segment_floor(mixture, teacher)
    assert floor == pytest.approx(theory.orthogonal_floor(0.64, 0.80)) == pytest.approx(0.35556, abs=1e-5)
    risks = [
        theory.naive_risk(mixture, teacher, theory.pull_of(eta)) for eta in np.geomspace(1e-4, 1e4, 2001)
    ]
    assert floor <= min(risks) < floor + 1e-5
    assert theory.best_pull(mixture, teacher) == pytest.approx(theory.pull_of(0.64 / 0.80))
    # Half of the smaller error is the least that such a floor can be; a noisy teacher has none.
    assert floor >= 0.5 * 0.64
    assert theory.segment_floor(mixture, noisy(mixture, 3)) == 0


@pytest.mark.parametrize("alignment", [-1, -0.5, 0.5, 1])
def test_without_orthogonality_the_floor_is_the_segments(alignment):
    mixture = plain()
    teacher = biased(mixture, 0.8, alignment)
    assert np.linalg.norm(teacher.bias) == pytest.approx(0.8)
    floor = theory.segment_floor(mixture, teacher)
    risks = [theory.naive_risk(mixture, teacher, pull) for pull in np.linspace(0, 1, 10_001)]
    assert floor == pytest.approx(min(risks), abs=1e-7)
    # A bias away from the source's mean can be pulled back, one towards it cannot.
    presumed = theory.orthogonal_floor(0.64, 0.80)
    assert (floor < presumed) == (alignment < 0)
    assert abs(floor - presumed) > 0.1


def test_a_noisy_teachers_best_pull_depends_on_the_number_of_labels():
    mixture = plain()
    teacher = noisy(mixture, 3)
    for n in (200, 20_000):
        eta = 9 * 20 / n / 0.8
        assert theory.best_pull(mixture, teacher, n) == pytest.approx(theory.pull_of(eta))


# ---------------------------------------------------------------- refinement and its bound


@pytest.mark.parametrize("name", ["biased-0.4", "biased-1.6", "noisy-0.5", "noisy-1.5", "noisy-3"])
@pytest.mark.parametrize("settings", [{}, {"correlation": 0.5}, {"prior": 0.01}])
def test_the_bound_holds(name, settings):
    mixture = plain(**settings)
    teacher = teacher_named(mixture, name)
    bounds = []
    for shown, weights in zip(SHOWN, weights_of(mixture, teacher, contexts=2000), strict=True):
        cells = missing(weights)
        bounds.append(theory.missing_bound(mixture, teacher, shown))
        assert cells.mean() - 3 * standard_error(cells) <= bounds[-1]
        assert theory.refined_risk(mixture, weights) <= mixture.separations.max() * cells.mean() ** 2 + 1e-12
        assert theory.risk_bound(mixture, teacher, shown) == pytest.approx(
            mixture.separations.max() * bounds[-1] ** 2
        )
    assert bounds == sorted(bounds, reverse=True)


def test_the_bound_has_the_known_rate_and_is_not_loose():
    mixture = plain()
    teacher = biased(mixture, 0.8)
    s, rho = theory.decay(mixture, teacher)
    assert s == pytest.approx(1 / (2 * 1.64))
    assert rho == pytest.approx(np.full(4, (1 + 1 / (2 * 1.64)) ** -0.5))
    by_shown = dict(zip(SHOWN, weights_of(mixture, teacher), strict=True))
    measured = (theory.missing_weight(by_shown[32]) / theory.missing_weight(by_shown[8])) ** (1 / 24)
    assert 0.95 * rho[0] < measured < rho[0]


@pytest.mark.parametrize(
    ("settings", "alignment"), [({"inputs": "uniform"}, 0.0), ({"distance": 0.5}, 0.0), ({}, 0.5)]
)
def test_where_the_bound_is_not_proven_there_is_none(settings, alignment):
    mixture = plain(**settings)
    teacher = biased(mixture, 0.8, alignment)
    assert np.isnan(theory.missing_bound(mixture, teacher, 8))
    assert np.isnan(theory.risk_bound(mixture, teacher, 8))


def test_an_orthogonal_bias_confuses_like_its_square_as_noise():
    mixture = plain()
    same = [
        weights_of(mixture, teacher, seed)
        for seed, teacher in ((1, biased(mixture, 0.8)), (2, noisy(mixture, np.sqrt(1 + 0.64))))
    ]
    for left, right in zip(*map(list, same), strict=True):
        cells = missing(left), missing(right)
        error = np.hypot(*map(standard_error, cells))
        assert abs(cells[0].mean() - cells[1].mean()) < 4 * error
    # And by the bound they are the same teacher.
    assert theory.missing_bound(mixture, biased(mixture, 0.8), 16) == pytest.approx(
        theory.missing_bound(mixture, noisy(mixture, np.sqrt(1.64)), 16)
    )


def test_drawing_the_span_only_is_drawing_all_of_the_inputs():
    # The same distribution by the long way: inputs of all dimensions, the likelihood written out.
    mixture = plain()
    teacher, generator = biased(mixture, 0.8), np.random.default_rng(5)
    inputs = generator.standard_normal((CONTEXTS, 8, 20))
    labels = inputs @ (mixture.target + teacher.bias) + generator.standard_normal((CONTEXTS, 8))
    likelihood = (
        np.exp(-0.5 * ((labels[..., None] - inputs @ mixture.concepts.T) ** 2).sum(1)) * mixture.prior
    )
    slow = missing(likelihood / likelihood.sum(-1, keepdims=True))
    fast = missing(weights_of(mixture, teacher)[SHOWN.index(8)])
    assert abs(slow.mean() - fast.mean()) < 4 * np.hypot(standard_error(slow), standard_error(fast))


def test_uniform_inputs_behave_alike():
    mixtures = [plain(inputs=inputs) for inputs in theory.INPUTS]
    found = [weights_of(mixture, biased(mixture, 0.8), contexts=2000) for mixture in mixtures]
    for gaussian, uniform in zip(*map(list, found), strict=True):
        # Sums over 20 dimensions are nearly Gaussian; 0.01 is for what is left of the difference.
        error = np.hypot(standard_error(missing(gaussian)), standard_error(missing(uniform)))
        assert abs(missing(gaussian).mean() - missing(uniform).mean()) < 4 * error + 0.01


def test_a_student_of_refined_labels_meets_the_population():
    mixture, n, blocks = plain(), 20_000, 20
    weights = weights_of(mixture, biased(mixture, 0.8), contexts=2000)[SHOWN.index(4)]
    generator = np.random.default_rng(4)
    inputs = theory.draw_inputs(generator, mixture, (n, 20))
    labels = theory.refined_labels(generator, mixture, weights, inputs, blocks)
    errors = theory.fit_errors(mixture, theory.moments(mixture, inputs, labels, blocks))
    cells = theory.linearised(errors)
    assert cells.mean() == pytest.approx((errors.mean(0) ** 2).sum())
    expected = theory.refined_risk(mixture, weights)
    variance = 2 / n  # sigma^2 and the spread of concepts, at most 1
    assert abs(cells.mean() - expected) < 20 * variance + 4 * np.sqrt(4 * expected * variance)
    # One student averages its contexts; a single context is worse.
    assert theory.context_risks(mixture, weights).mean() > expected


def test_no_refinement_leaves_the_hull():
    mixture = plain(distance=0.6)
    weights = weights_of(mixture, biased(mixture, 0.8), contexts=2000)
    risks = [theory.refined_risk(mixture, found) for found in weights]
    assert all(risk >= 0.36 - 1e-12 for risk in risks)
    assert risks[-1] == pytest.approx(0.36, abs=1e-3)


def test_a_rare_concept_takes_more_examples():
    found = {}
    for prior in (0.2, 1e-4):
        mixture = plain(prior=prior)
        assert mixture.prior.sum() == pytest.approx(1)
        found[prior] = [
            theory.missing_weight(w) for w in weights_of(mixture, biased(mixture, 0.8), contexts=2000)
        ]
    assert all(rare > common for rare, common in zip(found[1e-4], found[0.2], strict=True))
    assert found[1e-4][-1] < 0.01


@pytest.mark.parametrize(
    "settings",
    [
        {"concepts": 1},
        {"concepts": 19},
        {"correlation": 1.0},
        {"correlation": -0.25},
        {"prior": 0.0},
        {"prior": 1.0},
        {"sigma": 0.0},
        {"inputs": "binary"},
    ],
)
def test_impossible_mixtures_are_refused(settings):
    with pytest.raises(ConfigError):
        plain(**settings)


def test_concepts_have_the_wanted_inner_products():
    concepts = plain(correlation=0.3).concepts
    assert concepts @ concepts.T == pytest.approx(0.3 + 0.7 * np.eye(5))
    assert plain(correlation=0.3).free @ concepts.T == pytest.approx(np.zeros(5))


# ---------------------------------------------------------------- the stages


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    manifest = tmp_path_factory.mktemp("theory") / "mixture" / "manifest.json"
    simulate_mixture.main([*SMALL, "--output", str(manifest)])
    return manifest


def test_equal_settings_give_equal_bytes(tables, tmp_path):
    again = tmp_path / "again" / "manifest.json"
    simulate_mixture.main([*SMALL, "--output", str(again)])
    assert again.read_bytes() == tables.read_bytes()


def test_measurements_are_blocks_of_the_tables_values(tables):
    cells = pd.read_parquet(tables.parent / "measurements.parquet")
    assert list(cells.columns) == list(simulate_mixture.IDENTITY)
    assert not cells.duplicated(["data", "arm", "weak", "shown", "seed", "id"]).any()
    assert np.isfinite(cells["value"]).all()
    table = pd.read_csv(tables.parent / "refinement.csv").sort_values(["teacher", "shown", "seed"])
    for arm, column in (("icl", "fitted"), ("timed", "test_time")):
        means = cells[cells["arm"] == arm].groupby(["weak", "shown", "seed"])["value"].mean()
        assert means.to_numpy() == pytest.approx(table[column].to_numpy())
    untuned = cells[cells["arm"] == "untuned"]
    assert set(untuned["weak"]) == {""}
    assert untuned["value"].to_numpy() == pytest.approx(2 / 3)  # K = 3: (1 - 1/3)^2 + 2 / 9
    assert set(cells.loc[cells["arm"] == "naive", "weak"]) == set(table["teacher"])


def test_the_claim_is_seen_in_the_measurements(tables):
    cells = pd.read_parquet(tables.parent / "measurements.parquet")
    means = cells[cells["data"] == "biased"].groupby(["weak", "arm", "shown"], dropna=False)["value"].mean()
    for weak in ("biased-0.8", "biased-1.6"):
        assert means[weak, "icl", 32] < 0.5 * means[weak, "naive"].iloc[0]
        assert means[weak, "icl", 32] < means[weak, "icl", 8] < means[weak, "icl", 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shown", "4", "2"], "--shown"),
        (["--seeds", "1", "1"], "--seeds"),
        (["--contexts", "105"], "--contexts"),
        (["--biases", "--noises"], "no teacher"),
        (["--priors", "0"], "prior"),
        (["--noises", "0"], "noise"),
    ],
)
def test_settings_that_make_no_simulation_are_refused(flags, message, tmp_path):
    manifest = tmp_path / "bad" / "manifest.json"
    with pytest.raises(ConfigError, match=message):
        simulate_mixture.main([*SMALL, *flags, "--output", str(manifest)])
    assert not manifest.parent.exists()


def test_the_figure_draws_its_csv(tables, tmp_path):
    pdf, png, csv = (tmp_path / f"theory.{suffix}" for suffix in ("pdf", "png", "csv"))
    plot_mixture.main(["--tables", str(tables), "--pdf", str(pdf), "--png", str(png), "--csv", str(csv)])
    assert pdf.read_bytes().startswith(b"%PDF")
    with Image.open(png) as image:
        caption = image.info["Description"]
    assert "3 seeds of 100 contexts" in caption and "our bound" in caption
    drawn = pd.read_csv(csv)
    assert set(drawn["panel"]) == set(plot_mixture.PANELS)
    # What is the same for each seed has an interval without width, up to rounding.
    assert (drawn["low"] <= drawn["mean"] + 1e-12).all() and (drawn["mean"] <= drawn["high"] + 1e-12).all()
    table = pd.read_csv(tables.parent / "refinement.csv")
    wanted = table[(table["teacher"] == "biased-0.8") & (table["shown"] == 8)]["excess_risk"].mean()
    found = drawn.query("panel == 'biased' and series == 'biased-0.8' and kind == 'measured' and x == 8")
    assert found["mean"].item() == pytest.approx(wanted)


def test_a_simulation_of_uniform_inputs_is_drawn_without_bound(tmp_path):
    manifest = tmp_path / "uniform" / "manifest.json"
    flags = ["--inputs", "uniform", "--seeds", "1", "--distances", "0", "--noises"]
    simulate_mixture.main([*SMALL, *flags, "--output", str(manifest)])
    points = plot_mixture.read_points(manifest)
    assert "bound" not in set(points["kind"])
    assert "noisy" not in set(points["panel"])  # the panel says so, and the figure is drawn
    _, note = plot_mixture.draw(points, manifest)
    assert "No bound is known" in note and "One seed" in note
