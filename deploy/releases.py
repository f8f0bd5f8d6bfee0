"""Commands about releases: which there are, which is live, and with what threshold.

They import `export.releases` when they run: it takes a second, which `serve` need not wait for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from deploy.errors import CommandError, RepositoryError
from deploy.trust.keys import load_signer, signing_key_option
from model_repository.endpoint_options import endpoint_options
from model_repository.running_servers import running

PATH = click.Path(path_type=Path)

_repository = click.option(
    "--repository", default="model_repository", type=PATH, help="The repository that is served."
)
_category = click.option("--category", required=True, help="Product, e.g. pill, mono.")
_host_and_port = click.option(
    "--url",
    help="host:port of the server's gRPC endpoint.  [default: that of the server of this machine that serves the "
    "repository; where none does, its next start takes what is live]",
)
_allow_interruption = click.option(
    "--allow-interruption",
    is_flag=True,
    help="Also where requests may fail meanwhile: a release on another platform cannot be loaded beside the live one.",
)
_reason = click.option("--reason", default="", help="Why; kept in the audit log, and in a new record.")


def _url(command: Any) -> Any:
    """--url, and the certificates and keys of the connection."""
    return _host_and_port(endpoint_options(command))


# `deploy.bundles` takes them too.
category_option, repository_option, url_option, reason_option = _category, _repository, _url, _reason


@click.command()
@_repository
@click.option("--category", help="Of this product alone.")
@click.option("--json", "as_json", is_flag=True, help="Everything that is known of them, as JSON.")
def releases(repository: Path, category: str | None, as_json: bool) -> None:
    """List the releases of a repository, and say which are live.

    A record that cannot be read is named; the exit code is 1 then.
    """
    from export.releases.verbs.table import faults_of, releases_of, releases_table, wide_console

    entries = releases_of(repository, category)
    if as_json:
        click.echo(json.dumps(entries, indent=2))
    else:
        wide_console().print(releases_table(entries))
    if faults := faults_of(entries):
        raise RepositoryError(" ".join(faults))


@click.command()
@click.argument("number", type=click.IntRange(1))
@_category
@_repository
@_url
@_allow_interruption
@_reason
@signing_key_option
def promote(
    number: int,
    category: str,
    repository: Path,
    url: str | None,
    allow_interruption: bool,
    reason: str,
    signing_key: Path | None,
) -> None:
    """Make release NUMBER live: loaded, asked about images whose scores are known, and only then switched to.

    Where it cannot be loaded or answers otherwise, what is live stays live.
    """
    from export.releases.audit import Act
    from export.releases.verbs.promote import promote

    act, url = Act(reason, load_signer(signing_key)), url or find_url(repository)
    click.echo(promote(repository, category, number, url=url, act=act, allow_interruption=allow_interruption))


@click.command()
@_category
@_repository
@_url
@_allow_interruption
@_reason
@signing_key_option
def rollback(
    category: str,
    repository: Path,
    url: str | None,
    allow_interruption: bool,
    reason: str,
    signing_key: Path | None,
) -> None:
    """Make the release live again that was live before."""
    from export.releases.audit import Act
    from export.releases.verbs.promote import rollback

    act, url = Act(reason, load_signer(signing_key)), url or find_url(repository)
    click.echo(rollback(repository, category, url=url, act=act, allow_interruption=allow_interruption))


@click.command()
@_category
@_repository
@_url
@click.option("--threshold", type=float, help="The score above which an image is judged defective.")
@click.option(
    "--false-reject-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Of new good images, at most: the threshold follows from the scores of --images.",
)
@click.option("--images", "good", type=PATH, help="Folder of good images.")
@click.option(
    "--escapes",
    "bad",
    type=PATH,
    help="Folder of defective images that passed. Alone, the threshold is set just below the lowest of their scores.",
)
@click.option(
    "--of-release",
    type=int,
    metavar="ID",
    help="Release id that the threshold was chosen for: where another is live by now, nothing is changed.",
)
@_reason
@signing_key_option
@click.option("--json", "as_json", is_flag=True, help="What is live now, and what was, as JSON.")
def retune(
    category: str,
    repository: Path,
    url: str | None,
    reason: str,
    signing_key: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Give the live release of CATEGORY another threshold: a new release of the same weights, live at once.

    How many of the good and bad images that were given are judged defective is said, before and after.
    """
    from export.releases.verbs.retune import Retuning, missing, retuned

    how = Retuning(**given)
    if faults := missing(how):
        raise click.UsageError(f"{faults[0]}.")
    url, signer = url or find_url(repository), load_signer(signing_key)
    done = retuned(repository, category, how, url=url, why=reason, signer=signer)
    for line in [json.dumps(done.values(), indent=2)] if as_json else done.said:
        click.echo(line)


def find_url(repository: Path) -> str | None:
    """The gRPC endpoint of the server of this machine that serves a repository; None where there is none.

    Raises:
        CommandError: there are several.
    """
    urls = running(repository)
    if len(urls) > 1:
        raise CommandError(f"{repository} is served at {' and '.join(urls)}; name one of them with --url.")
    return urls[0] if urls else None


COMMANDS: tuple[click.Command, ...] = (releases, promote, rollback, retune)
