"""Pages from Jinja templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def render(template: Path, values: dict[str, Any]) -> str:
    """Fill the template. A name that the template uses and nobody gave is an error, not an empty place."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)
