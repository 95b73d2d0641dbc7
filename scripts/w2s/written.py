"""Tables as people read them: one content as Markdown, as an HTML fragment for the report, and as CSV.

Whatever a cell holds is escaped: a text of a data set can neither close a cell nor start a heading, a list or a
tag. The fragments carry no id, no script and no style of their own; they take the page's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from w2s.artifact import write_atomically

# What Markdown gives a meaning to. A leading one of the second kind would start a block.
_INLINE = re.compile(r"([\\`*_\[\]<>|~$#])")
_BLOCK = re.compile(r"^(\d*)([-+=.)])(?=[\s=-]|$)")

FRAGMENT = """<section class="written">
<h3>{{ title }}</h3>
{% for note in notes %}
<p class="soft">{{ note }}</p>
{% endfor %}
{% for table in tables %}
{% if table.title %}
<p class="soft"><strong>{{ table.title }}</strong></p>
{% endif %}
<div class="scroll" tabindex="0" role="group" aria-label="{{ table.title or title }}">
<table>
<thead><tr>{% for name in table.header %}<th scope="col"{% if loop.index0 in table.numbers %} class="number"{% endif %}>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}{% if loop.first %}<th scope="row">{{ cell }}</th>{% else %}<td class="{{ 'number' if loop.index0 in table.numbers else 'name' }}">{{ cell }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
{% for text in texts %}
<h4>{{ text.title }}</h4>
{% if text.note %}
<p class="soft">{{ text.note }}</p>
{% endif %}
{% for name, body in text.bodies %}
<p><strong>{{ name }}</strong></p>
<pre class="scroll" tabindex="0">{{ body }}</pre>
{% endfor %}
{% endfor %}
</section>
"""


@dataclass
class Table:
    """Cells as text, row by row; ``numbers`` are the places of the columns that are set to the right."""

    header: list[str]
    rows: list[list[str]]
    numbers: frozenset[int] = frozenset()
    title: str = ""


@dataclass
class Text:
    """Long texts under one heading: (name, text), shown whole and as they are."""

    title: str
    bodies: list[tuple[str, str]]
    note: str = ""


@dataclass
class Document:
    """What is written: a title, sentences on how to read it, tables, then long texts."""

    title: str
    notes: Sequence[str]
    tables: Sequence[Table] = ()
    texts: Sequence[Text] = field(default_factory=list)


def write(document: Document, *, md: Path, html: Path) -> None:
    """Write both forms; each file appears whole or not at all."""
    write_atomically(md, lambda path: path.write_text(markdown(document), encoding="utf-8"))
    write_atomically(html, lambda path: path.write_text(fragment(document), encoding="utf-8"))


def fragment(document: Document) -> str:
    """The document as a piece of a page, everything escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    values = {"title": document.title, "notes": document.notes, "tables": document.tables}
    return environment.from_string(FRAGMENT).render(**values, texts=document.texts)


def markdown(document: Document) -> str:
    """The document as Markdown with pipe tables; long texts stand in fences longer than any in them."""
    parts = [f"## {escaped(document.title)}", *map(escaped, document.notes)]
    for table in document.tables:
        parts += [f"**{escaped(table.title)}**"] if table.title else []
        parts.append(_pipes(table))
    for text in document.texts:
        parts += [f"### {escaped(text.title)}", *([escaped(text.note)] if text.note else [])]
        for name, body in text.bodies:
            parts += [f"**{escaped(name)}**", _fenced(body)]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """A text as one Markdown line that shows exactly these characters."""
    line = " ".join(text.split())
    return _BLOCK.sub(r"\1\\\2", _INLINE.sub(r"\\\1", line.replace("&", "&amp;")))


def _pipes(table: Table) -> str:
    rule = ["---:" if place in table.numbers else "---" for place in range(len(table.header))]
    lines = [[escaped(cell) for cell in row] for row in (table.header, *table.rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:]))


def _fenced(body: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{body}\n{fence}"
