"""`page`: look at what arrives, in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from client.cli.options import AT_LEAST_ONE, PATH, TIMEOUT, URL, utf8
from client.cli.tracing import TRACE
from model_repository.endpoint_options import OPTIONS

# Of the connection to the server. Its own certificate, where the server asks for one, the environment names:
# --tls-cert and --tls-key are the page's here, as they are the server's of `deploy serve`.
AUTHORITY, _CERTIFICATE, _KEY, KEY_FILE = OPTIONS
MISSING = "The page needs {name}, which is not installed here; install the extra: pip install 'astmfr[page]'."


@click.command()
@click.option(
    "--category",
    "categories",
    multiple=True,
    required=True,
    callback=lambda context, option, names: [utf8(context, option, name) for name in names],
    help="Published product, e.g. pill; give it several times for several.",
)
@URL
@AUTHORITY
@KEY_FILE
@TRACE
@TIMEOUT
@click.option(
    "--data",
    required=True,
    type=PATH,
    help="Folder of the history and its pictures; of one page at a time.",
)
@click.option("--listen", default="127.0.0.1:8080", help="host:port of the page; port 0 for a free one.")
@click.option(
    "--watch",
    "watched",
    multiple=True,
    metavar="CATEGORY=FOLDER",
    help="Watch a folder, and judge each picture that appears there.",
)
@click.option(
    "--journal",
    "journals",
    multiple=True,
    type=PATH,
    help="Journal of a `watch` that runs elsewhere; its verdicts are shown.",
)
@click.option(
    "--repository",
    type=PATH,
    help="The model repository that the server serves; new thresholds and candidates need it.",
)
@click.option(
    "--base",
    "bases",
    multiple=True,
    metavar="CATEGORY=FOLDER",
    help="Images that the category was trained on; exported marks are added to them.",
)
@click.option(
    "--keep",
    type=AT_LEAST_ONE,
    help="Remove pictures and maps before the last so many; rows and marked ones stay.  [default: all]",
)
@click.option(
    "--tokens",
    type=PATH,
    help="File with the lines viewer=<token> and editor=<token>: who may look, and who may change.",
)
@click.option(
    "--tls-cert", "tls_cert", type=PATH, help="The page's certificate, PEM: it is encrypted with it."
)
@click.option("--tls-key", "tls_key", type=PATH, help="Its private key, PEM, readable by its owner alone.")
@click.option(
    "--insecure",
    is_flag=True,
    help="Listen on another address than this machine's own without tokens or TLS; people may only look then.",
)
def page(categories: list[str], url: str, timeout_s: float, data: Path, listen: str, **others: Any) -> None:
    """Serve a page on which people see what arrives, look closer, set thresholds and mark wrong verdicts.

    Drop pictures onto it, or let it follow a folder. It serves until Ctrl-C.
    """
    try:
        import jinja2  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise click.ClickException(MISSING.format(name=error.name)) from None
    from client.page.options import (
        Feeds,
        Options,
        Place,
        Protection,
        check_access,
        check_categories,
        folders_of,
    )
    from client.page.serving import serve

    names = check_categories(categories)
    place = Place.of(listen)
    protection = Protection(*(others[name] for name in ("tokens", "tls_cert", "tls_key", "insecure")))
    access, tls = check_access(place, protection)
    serve(
        Options(
            categories=names,
            url=url,
            timeout_s=timeout_s,
            data=data,
            place=place,
            feeds=Feeds(folders_of("--watch", others["watched"], names), others["journals"]),
            access=access,
            tls=tls,
            repository=others["repository"],
            keep=others["keep"],
            bases=folders_of("--base", others["bases"], names),
        ),
        lambda address: click.echo(f"The page is at {address}; Ctrl-C ends it."),
    )
