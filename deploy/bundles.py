"""Commands that carry releases to another machine, and that remove old ones.

They import `export.releases` when they run, as `deploy.releases` does.
"""

from __future__ import annotations

from pathlib import Path

import click

from deploy.releases import PATH, category_option, find_url, reason_option, repository_option, url_option
from deploy.trust.keys import load_signer, signing_key_option


@click.command()
@click.argument("number", type=click.IntRange(1))
@category_option
@repository_option
@click.option("-o", "--output", required=True, type=PATH, help="The file, pill-3.bundle say.")
def bundle(number: int, category: str, repository: Path, output: Path) -> None:
    """Pack release NUMBER into one file for a machine without network: record, graphs, calibration and code."""
    from export.releases.verbs.bundle import bundle_release

    click.echo(bundle_release(repository, category, number, output))


@click.command("import")
@click.argument("file", type=PATH)
@repository_option
@click.option("--promote", is_flag=True, help="Make it live too, as `promote` does.")
@url_option
@click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    type=PATH,
    help="Its record must be signed by this key; more keys by naming it again.",
)
@reason_option
@signing_key_option
def import_(
    file: Path,
    repository: Path,
    promote: bool,
    url: str | None,
    public_keys: tuple[Path, ...],
    reason: str,
    signing_key: Path | None,
) -> None:
    """Add the release in FILE, which `bundle` wrote; all of it is checked before anything is written.

    It does not become live, unless --promote is given. Importing it again changes nothing.
    """
    from export.releases.audit import Act
    from export.releases.verbs.bundle import import_bundle, is_live, live_command
    from export.releases.verbs.promote import promote as make_live

    act = Act(reason, load_signer(signing_key))
    record, said = import_bundle(repository, file, public_keys=public_keys, act=act)
    if promote:
        click.echo(f"{said}.")
        url = url or find_url(repository)
        click.echo(make_live(repository, record.category, record.number, url=url, act=act))
        return
    live = "it is live"
    if not is_live(repository, record):
        live = f"make it live with `{live_command(repository, record)}`"
    click.echo(f"{said}; {live}.")


@click.command()
@click.option(
    "--keep",
    required=True,
    type=click.IntRange(1),
    help="So many of the last releases of each category stay.",
)
@repository_option
@url_option
@click.option("--yes", is_flag=True, help="Remove it.  [default: only say what would go]")
@click.option("--dry-run", is_flag=True, help="Only say what would go, which is what it does without --yes.")
@reason_option
@signing_key_option
def prune(
    keep: int,
    repository: Path,
    url: str | None,
    yes: bool,
    dry_run: bool,
    reason: str,
    signing_key: Path | None,
) -> None:
    """Remove old releases and what only they need; says what would go, with sizes, until --yes is given.

    The live release of a category and the one before always stay, and what a running server has loaded.
    """
    from export.releases.audit import Act
    from export.releases.verbs.prune import prune

    if yes and dry_run:
        raise click.UsageError("--yes and --dry-run exclude each other.")
    act = Act(reason, load_signer(signing_key))
    for line in prune(repository, keep, url=url or find_url(repository), apply=yes, act=act):
        click.echo(line)


COMMANDS: tuple[click.Command, ...] = (bundle, import_, prune)
