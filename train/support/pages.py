"""HTML pages that are one file: templates beside the code, pictures inside."""

from __future__ import annotations

import base64
from typing import Any

import jinja2


def render_page(package: str, template: str, **values: Any) -> str:
    """The template of that package, filled with the values; a missing one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def png_uri(png: bytes) -> str:
    """A PNG file as a URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
