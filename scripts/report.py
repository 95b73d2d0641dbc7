"""Make the report: one HTML page to be sent round, with nothing to load from elsewhere.

On top stands what was run, in one sentence, and the key result with its interval in plain words, computed
from the tables, whichever way it came out. Below: figures (with their data and the PDF to download), tables,
label quality by margin, dropped rows, what the run cost, machine and library versions, settings. Pictures and
data are inside the page; a content security policy in its head forbids it to load anything.

Inputs:  tables of experiments, figures (PNG, with .csv and .pdf beside), written tables (HTML fragments, with
.csv and .md beside), filtered data sets, template.
Outputs: the page. Its content depends on the inputs only: no date of today, no path of this machine.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from w2s import cli
from w2s.artifact import write_atomically
from w2s.errors import DataError
from w2s.pages import render

MEDIA_TYPES = {
    "png": "image/png",
    "pdf": "application/pdf",
    "csv": "text/csv;charset=utf-8",
    "md": "text/markdown;charset=utf-8",
}
# By whether the experiment that leads the page is a transfer (paper B).
HEADINGS = {False: "Weak labels against human labels", True: "What strong models learn from weak ones"}
FILES = {"csv": "Data as CSV", "pdf": "Figure as PDF", "md": "Table as Markdown"}
# How the fragments of w2s.written begin: nothing else may stand in the page as it is.
FRAGMENT_START = '<section class="written">'


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", nargs="+", help="manifests of the experiments' tables; the first leads the page")
    parser.input(
        "--figures",
        nargs="*",
        help="figures as PNG and written tables as HTML; files of the same name lie beside",
    )
    parser.input("--filtered", nargs="*", help="manifests of filtered data sets, for the dropped rows")
    parser.input("--template", help="the page's Jinja template (report/template.html)")
    parser.spec("--preset", help="name of the configuration preset")
    parser.output("--output", help="the page, .html")
    args = parser.parse_args(argv)
    page = render(args.template, content(args.preset, args.tables, args.figures, args.filtered))
    write_atomically(args.output, lambda path: path.write_text(page, encoding="utf-8"))


def content(preset: str, tables: list[Path], figures: list[Path], filtered: list[Path]) -> dict[str, Any]:
    """All that the template shows."""
    from w2s import findings, page_charts, provenance, summary, transfer_findings
    from w2s.transfer_results import is_transfer

    transfers = {path: is_transfer(path) for path in tables}
    experiments = [(transfer_findings if transfers[path] else findings).experiment(path) for path in tables]
    of_feedback = [path for path in tables if not transfers[path]]
    for entry in experiments:
        entry["forest"] = page_charts.forest(entry["findings"])
    reasons, drops = findings.drop_rows(filtered)
    # The tables of two experiments share ancestors; counted from the manifests, each job counts once.
    behind = provenance.ancestry([*tables, *filtered])
    cost_rows, total = findings.cost_rows(summary.costs_table(behind.artifacts))
    return {
        "preset": preset,
        "heading": HEADINGS[transfers[tables[0]]],
        "experiments": experiments,
        "dates": provenance.dates(behind.artifacts),
        "figures": [picture(path) for path in figures if path.suffix != ".html"],
        "written": [written(path) for path in figures if path.suffix == ".html"],
        "labels": findings.label_rows(of_feedback),
        "quality": [
            {"title": title, "chart": page_charts.quality(title, rows), "rows": quality_rows(rows)}
            for title, rows in findings.quality_groups(of_feedback)
        ],
        "drop_reasons": reasons,
        "drops": drops,
        "costs": cost_rows,
        "cost_total": total,
        "gone": len(behind.gone),
        "environment": provenance.environment_rows(behind.artifacts),
        "settings": provenance.settings_rows(behind.artifacts),
        "downloads": [table_download(path, name) for path in tables for name in table_names(path)],
    }


def table_names(tables: Path) -> list[str]:
    """The tables of an experiment or of a transfer that can be downloaded."""
    from w2s import transfer_results
    from w2s.results import result_names

    return list(transfer_results.TABLES) if transfer_results.is_transfer(tables) else result_names(tables)


def table_download(tables: Path, name: str) -> dict[str, str]:
    """A table of an experiment as a link that holds it."""
    from w2s.artifact import load

    experiment = load(tables).spec.get("experiment", tables.parent.name)
    return {"name": f"{experiment}_{name}", "link": data_link(load(tables).path(name))}


def picture(png: Path) -> dict[str, Any]:
    """A figure for the page: image, title and text from inside the PNG, data and PDF from beside it.

    Raises:
        DataError: the file is no PNG or has no text of its own.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(png) as image:
            about: dict[str, str] = {str(key): str(value) for key, value in image.info.items()}
            width, height = image.size
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(
            f"not a readable picture ({error})", where=png, instead="a PNG of the plot scripts"
        ) from error
    title = about.get("Title")
    if not title:
        raise DataError("the picture has no title inside", where=png, instead="a PNG of the plot scripts")
    text = about.get("Description", title).removeprefix(f"{title}. ")
    return {
        "id": png.stem,
        "title": title,
        "text": text,
        "image": data_link(png),
        "width": width,
        "height": height,
        "downloads": downloads_beside(png, "csv", "pdf"),
    }


def written(fragment: Path) -> dict[str, Any]:
    """A written table for the page: its fragment as it is, CSV and Markdown from beside it.

    Raises:
        DataError: the file is no fragment of this workflow.
    """
    from markupsafe import Markup

    try:
        text = fragment.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"not a readable fragment ({error})", where=fragment) from error
    if not text.startswith(FRAGMENT_START):
        raise DataError(
            "not a fragment of a page", where=fragment, instead="the HTML of a script that writes tables"
        )
    return {"id": fragment.stem, "html": Markup(text), "downloads": downloads_beside(fragment, "csv", "md")}


def downloads_beside(path: Path, *suffixes: str) -> list[dict[str, str]]:
    """The files of the same name that are there, as links that hold them."""
    beside = [path.with_suffix(f".{suffix}") for suffix in suffixes]
    return [
        {"name": file.name, "label": FILES[file.suffix[1:]], "link": data_link(file)}
        for file in beside
        if file.is_file()
    ]


def data_link(path: Path) -> str:
    """A file as a data: address."""
    coded = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{MEDIA_TYPES[path.suffix.removeprefix('.')]};base64,{coded}"


def quality_rows(rows) -> list[list[str]]:
    """Label quality in figures: bin, margin, labels, confidence, agreement with human and with gold."""
    from w2s.findings import percent
    from w2s.results import number, records

    return [
        [
            row.bin,
            f"{number(row.margin_low)} to {number(row.margin_high)}",
            f"{int(row.n):,}",
            percent(row.mean_confidence),
            percent(row.agreement_human),
            percent(row.agreement_gold),
        ]
        for row in records(rows)
    ]


if __name__ == "__main__":
    cli.run(main)
