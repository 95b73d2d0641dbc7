"""Simulate naive fine-tuning and refinement in a mixture of linear concepts (paper B's theory; docs/theory.md).

Everything is an excess risk: mean squared distance to E_Q[y | x], so that label noise itself does not count.

- ``naive.csv``: fits to n weak labels with a pull eta towards the source, beside the population's closed form and its
  eta-free floor: the least value over the segment from beta_w to beta_P.
- ``refinement.csv``: after n_ICL weak examples the excess risk of a student fitted to infinitely many refined labels
  (``excess_risk``) and to the largest n of them (``fitted``), that of the source with the examples before it
  and no student (``test_time``), the posterior's weight on other concepts (``missing_weight``), and our bounds
  on that weight and on the first; empty where they do not hold.
- ``hull.csv``, ``prior.csv``, ``correlation.csv``: what happens when an assumption fails: the target leaves the convex hull;
  the source hardly knows its concept; concepts are correlated (sweep ``concepts``), or the teacher's bias points to
  another concept (sweep ``bias``). Populations, one biased teacher. Arms: ``untuned``, ``teacher``, ``naive`` (its
  floor), ``orthogonal_floor`` (the closed form that presumes orthogonality), ``icl``, and ``hull`` (squared
  distance to the convex hull, which no refinement can pass).
- ``measurements.parquet``: what the scorecard reads, with data ``biased`` or ``noisy`` (kind of teacher): arms ``untuned``,
  ``teacher``, ``naive`` (best eta, fitted to the largest n), ``icl`` (fitted to as many refined labels), ``timed``
  (no student). An id is a block of labels and contexts; the mean over blocks is the fit to all of them.

Teachers share their draws of inputs and noise, and a longer context continues a shorter one, so that lines are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.artifact import Artifact
from w2s.errors import ConfigError
from w2s.tables import write_csv, write_parquet

if TYPE_CHECKING:
    import argparse

    import numpy as np
    import pandas as pd
    from w2s.mixture import Mixture, Teacher

IDENTITY = (
    *("experiment", "data", "share", "student", "arm", "feedback", "recipe", "step", "beta"),
    *("weak", "refiner", "shown", "metric", "judge", "seed", "id", "value"),
)
# What a seed's streams of random numbers are for.
GEOMETRY, CONTEXTS, LABELS, REFINED = range(4)
MODEL = "mixture"


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.output("--output", help="manifest of the tables")
    parser.spec("--experiment", default="b_theory", help="name in the measurements")
    parser.spec("--dimension", type=cli.positive_int, default=20, help="of the inputs: d")
    parser.spec("--concepts", type=cli.positive_int, default=5, help="number of concepts: K")
    parser.spec("--sigma", type=float, default=1.0, help="standard deviation of an answer, given its concept")
    parser.spec("--inputs", choices=("gaussian", "uniform"), default="gaussian", help="both of variance 1")
    parser.spec("--biases", type=float, nargs="*", default=[0.4, 0.8, 1.6], help="norms of biased teachers")
    parser.spec(
        "--noises", type=float, nargs="*", default=[1.5, 3.0], help="deviations of noisy ones' labels"
    )
    parser.spec(
        "--etas", type=float, nargs="+", default=[0, 0.1, 0.3, 1, 3, 10, 100], help="pulls to the source"
    )
    parser.spec("--shown", type=cli.positive_int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], help="n_ICL")
    parser.spec("--contexts", type=cli.positive_int, default=2000, help="contexts of a seed")
    parser.spec("--labels", type=cli.positive_int, nargs="+", default=[200, 2000, 20000], help="n of a fit")
    parser.spec("--blocks", type=cli.positive_int, default=20, help="blocks of a seed's labels and contexts")
    parser.spec("--swept-bias", type=float, default=0.8, help="norm of the teacher of the sweeps")
    parser.spec("--distances", type=float, nargs="*", default=[0, 0.2, 0.4, 0.6, 0.8, 1], help="to the hull")
    parser.spec(
        "--priors", type=float, nargs="*", default=[0.5, 0.2, 0.1, 1e-2, 1e-4, 1e-6, 1e-8], help="alpha_k*"
    )
    parser.spec(
        "--correlations", type=float, nargs="*", default=[-0.2, 0, 0.2, 0.4, 0.6, 0.8], help="of concepts"
    )
    parser.spec(
        "--alignments", type=float, nargs="*", default=[-1, -0.5, 0, 0.5, 1], help="of bias and a concept"
    )
    parser.spec("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    check(args)
    import pandas as pd

    with Artifact.create(args.output, spec=args.spec, parents={}, script=__file__) as artifact:
        rows: dict[str, list[dict[str, Any]]] = {
            "naive": [],
            "refinement": [],
            **{name: [] for name in SWEEPS},
        }
        measured: list[pd.DataFrame] = []
        for seed in args.seeds:
            mixture = model(args, seed)
            for teacher in teachers(args, mixture):
                study = Study(args, seed, mixture, teacher)
                rows["naive"] += study.naive()
                rows["refinement"] += study.refinement()
                measured += study.measured()
            for name, sweep in SWEEPS.items():
                rows[name] += [{**row, "seed": seed} for row in sweep(args, seed)]
        for name, found in rows.items():
            write_csv(pd.DataFrame(found), artifact.path(f"{name}.csv"))
        # The unaligned source is the same beside each teacher of a kind.
        measurements = pd.concat(measured, ignore_index=True)[list(IDENTITY)].drop_duplicates(
            ignore_index=True
        )
        write_parquet(measurements[list(IDENTITY)], artifact.path("measurements.parquet"))
        artifact.record(
            seeds=args.seeds,
            rows={f"{name}.csv": len(found) for name, found in rows.items()},
            measurements=len(measurements),
        )


def check(args: argparse.Namespace) -> None:
    """Refuse settings that make no simulation.

    Raises:
        ConfigError: names the setting.
    """
    if not args.biases and not args.noises:
        raise ConfigError("no teacher", where="--biases, --noises", instead="at least one of either")
    for name in ("biases", "noises", "etas", "shown", "labels", "seeds"):
        values = getattr(args, name)
        if values != sorted(set(values)) or min(values, default=0) < 0:
            raise ConfigError(
                f"{values} is not ascending without doubles from 0",
                where=f"--{name}",
                instead="such as 1 2 4",
            )
    for name, value in (("contexts", args.contexts), ("labels", args.labels[-1])):
        if value % args.blocks:
            raise ConfigError(
                f"{value} cannot be divided into {args.blocks} equal blocks", where=f"--{name}, --blocks"
            )


def model(args: argparse.Namespace, seed: int, **deviation: Any) -> Mixture:
    """A seed's mixture; ``deviation`` breaks an assumption of the paper."""
    from w2s.mixture import make_mixture

    return make_mixture(
        stream(seed, GEOMETRY),
        dimension=args.dimension,
        concepts=args.concepts,
        sigma=args.sigma,
        inputs=args.inputs,
        **deviation,
    )


def teachers(args: argparse.Namespace, mixture: Mixture) -> list[Teacher]:
    """Biased teachers, then noisy ones."""
    from w2s.mixture import biased, noisy

    return [biased(mixture, size) for size in args.biases] + [noisy(mixture, sd) for sd in args.noises]


def stream(seed: int, purpose: int) -> np.random.Generator:
    """Random numbers of a seed for one purpose."""
    import numpy as np

    return np.random.default_rng([seed, purpose])


class Study:
    """One teacher and one seed: what naive fine-tuning and refinement reach."""

    def __init__(self, args: argparse.Namespace, seed: int, mixture: Mixture, teacher: Teacher) -> None:
        from w2s.mixture import draw_inputs, posteriors, weak_labels

        self.args, self.seed, self.mixture, self.teacher = args, seed, mixture, teacher
        generator = stream(seed, LABELS)
        self.inputs = draw_inputs(generator, mixture, (args.labels[-1], args.dimension))
        self.labels = weak_labels(generator, mixture, teacher, self.inputs)
        weights = posteriors(stream(seed, CONTEXTS), mixture, teacher, args.shown, args.contexts)
        self.weights = dict(zip(args.shown, weights, strict=True))
        self.refined = {shown: self._refined_errors(shown) for shown in args.shown}

    def naive(self) -> list[dict[str, Any]]:
        """Rows of ``naive.csv``."""
        from w2s.mixture import fit_errors, moments, naive_risk, pull_of, segment_floor

        mixture, teacher = self.mixture, self.teacher
        rows = []
        for n in self.args.labels:
            found = moments(mixture, self.inputs[:n], self.labels[:n])
            for eta in self.args.etas:
                error = fit_errors(mixture, found, pull_of(eta))[0]
                rows.append(
                    {
                        **{"teacher": teacher.name, "eta": eta, "n": n, "seed": self.seed},
                        "excess_risk": float(error @ error),
                        "closed_form": naive_risk(mixture, teacher, pull_of(eta)),
                        "floor": segment_floor(mixture, teacher),
                    }
                )
        return rows

    def refinement(self) -> list[dict[str, Any]]:
        """Rows of ``refinement.csv``."""
        from w2s.mixture import context_risks, missing_bound, missing_weight, refined_risk, risk_bound

        mixture, teacher = self.mixture, self.teacher
        return [
            {
                **{"teacher": teacher.name, "shown": shown, "seed": self.seed},
                "excess_risk": refined_risk(mixture, weights),
                "fitted": float((self.refined[shown].mean(0) ** 2).sum()),
                "test_time": float(context_risks(mixture, weights).mean()),
                "missing_weight": missing_weight(weights),
                "missing_bound": missing_bound(mixture, teacher, shown),
                "risk_bound": risk_bound(mixture, teacher, shown),
            }
            for shown, weights in self.weights.items()
        ]

    def measured(self) -> Iterator[pd.DataFrame]:
        """Measurements of all arms, a value per block."""
        import numpy as np
        from w2s.mixture import best_pull, context_risks, fit_errors, linearised, moments, risk

        mixture, teacher, blocks = self.mixture, self.teacher, self.args.blocks
        found = moments(mixture, self.inputs, self.labels, blocks)
        naive = fit_errors(mixture, found, best_pull(mixture, teacher, len(self.labels)))
        yield self._cells("untuned", np.full(blocks, risk(mixture, mixture.source)), weak="")
        yield self._cells("teacher", np.full(blocks, risk(mixture, mixture.target + teacher.bias)))
        yield self._cells("naive", linearised(naive))
        for shown, weights in self.weights.items():
            yield self._cells("icl", linearised(self.refined[shown]), shown)
            risks = context_risks(mixture, weights).reshape(blocks, -1)
            yield self._cells("timed", risks.mean(1), shown)

    def _refined_errors(self, shown: int) -> np.ndarray:
        """Errors of a student fitted to as many refined labels as there are weak ones, by block."""
        from w2s.mixture import fit_errors, moments, refined_labels

        blocks = self.args.blocks
        generator = stream(self.seed, REFINED)
        labels = refined_labels(generator, self.mixture, self.weights[shown], self.inputs, blocks)
        return fit_errors(self.mixture, moments(self.mixture, self.inputs, labels, blocks))

    def _cells(
        self, arm: str, values: np.ndarray, shown: float = float("nan"), weak: str | None = None
    ) -> pd.DataFrame:
        import pandas as pd

        tuned = arm in ("naive", "icl")
        return pd.DataFrame(
            {"id": [f"block-{place:03d}" for place in range(len(values))], "value": values}
        ).assign(
            experiment=self.args.experiment,
            data=self.teacher.kind,
            share="",
            student=MODEL,
            arm=arm,
            feedback=arm if tuned or arm == "timed" else "",
            recipe="least-squares" if tuned else "",
            step="",
            beta=float("nan"),
            weak=self.teacher.name if weak is None else weak,
            refiner=MODEL if arm in ("icl", "timed") else "",
            shown=float(shown),
            metric="excess_risk",
            judge="",
            seed=self.seed,
        )


# ---------------------------------------------------------------- where assumptions fail


def by_distance(args: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """The target leaves the convex hull of the concepts."""
    for distance in args.distances:
        hull = {"arm": "hull", "shown": None, "excess_risk": distance**2}
        for row in (*compare(args, seed, model(args, seed, distance=distance)), hull):
            yield {"distance": distance, **row}


def by_prior(args: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """The source hardly knows the target's concept."""
    for prior in args.priors:
        for row in compare(args, seed, model(args, seed, prior=prior)):
            yield {"prior": prior, **row}


def by_correlation(args: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """Concepts are not orthogonal; or the bias is not orthogonal to them."""
    for correlation in args.correlations:
        for row in compare(args, seed, model(args, seed, correlation=correlation)):
            yield {"sweep": "concepts", "correlation": correlation, **row}
    for alignment in args.alignments:
        for row in compare(args, seed, model(args, seed), alignment):
            yield {"sweep": "bias", "correlation": alignment, **row}


SWEEPS = {"hull": by_distance, "prior": by_prior, "correlation": by_correlation}


def compare(
    args: argparse.Namespace, seed: int, mixture: Mixture, alignment: float = 0.0
) -> Iterator[dict[str, Any]]:
    """Population excess risks of all arms in one mixture, with the biased teacher of the sweeps."""
    from w2s.mixture import biased, orthogonal_floor, posteriors, refined_risk, risk, segment_floor

    teacher = biased(mixture, args.swept_bias, alignment)
    source, weak = risk(mixture, mixture.source), risk(mixture, mixture.target + teacher.bias)
    yield {"arm": "untuned", "shown": None, "excess_risk": source}
    yield {"arm": "teacher", "shown": None, "excess_risk": weak}
    yield {"arm": "naive", "shown": None, "excess_risk": segment_floor(mixture, teacher)}
    yield {"arm": "orthogonal_floor", "shown": None, "excess_risk": orthogonal_floor(weak, source)}
    weights = posteriors(stream(seed, CONTEXTS), mixture, teacher, args.shown, args.contexts)
    for shown, mine in zip(args.shown, weights, strict=True):
        yield {"arm": "icl", "shown": shown, "excess_risk": refined_risk(mixture, mine)}


if __name__ == "__main__":
    cli.run(main)
