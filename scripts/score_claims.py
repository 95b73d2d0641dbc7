"""Score a paper's claims on the measurements of a run: verdicts, intervals, the paper's numbers beside ours.

Every part of every claim is a test that the file of claims fixes beforehand. Verdicts: *reproduced* (significant as
claimed, after Holm's adjustment over all testable parts), *direction only*, *inconclusive*, *not reproduced*
(significantly the contrary), *not run*, and *cannot speak* where a made-up world has no say, such as how often real people
agree. One seed never reproduces or refutes anything. For each comparison the seeds or prompts that a test would need are
computed from the run's own variance, and a section of its own tells what the paper's printed numbers can bear.
docs/scorecard.md says how each number is made.

Inputs:  tables of experiments with ``measurements.parquet``; the claims; the published values; the page's template.
Outputs: one row per comparison as CSV, everything as JSON, and a page for people as HTML. They depend on the inputs alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import cli
from w2s.artifact import write_atomically, write_json
from w2s.pages import render


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", nargs="*", help="manifests of the experiments' tables")
    parser.input("--claims", help="a paper's claims, published/claims-a.yaml")
    parser.input("--published", help="the paper's numbers, published/values.csv")
    parser.input("--template", help="the page's Jinja template (report/scorecard.html)")
    parser.output("--csv", help="one row per comparison")
    parser.output("--json", help="the same, nested, with all texts")
    parser.output("--html", help="the page")
    parser.spec("--bootstrap", type=cli.positive_int, default=2000, help="bootstrap draws")
    parser.spec("--bootstrap-seed", type=int, default=0)
    parser.spec("--world-data", nargs="*", default=[], help="data sets that come from a made-up world")
    args = parser.parse_args(argv)

    from w2s import paper_numbers, scorecard, scorecard_output
    from w2s.claims import read_claims
    from w2s.measured import read_measurements
    from w2s.printed import printed_results
    from w2s.results import read_published
    from w2s.statistics import Bootstrap
    from w2s.tables import write_csv

    claims, published = read_claims(args.claims), read_published(args.published)
    paper_numbers.check_published(claims, published)
    bootstrap = Bootstrap(args.bootstrap, args.bootstrap_seed)
    results = scorecard.score(claims, read_measurements(args.tables), published, bootstrap, args.world_data)
    printed = printed_results(claims, published)
    numbers = f"{args.published.parent.name}/{args.published.name}"
    page = render(args.template, scorecard_output.page(claims, results, printed, args.spec, numbers))
    write_csv(scorecard_output.table(results), args.csv)
    document = scorecard_output.document(claims, results, printed, args.spec)
    write_json(document, args.json)
    write_atomically(args.html, lambda path: path.write_text(page, encoding="utf-8"))


if __name__ == "__main__":
    cli.run(main)
