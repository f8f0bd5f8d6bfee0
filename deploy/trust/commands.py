"""`check` holds a repository to its records, `audit` shows who changed it, `keygen` makes keys to sign with."""

from __future__ import annotations

import json
from pathlib import Path

import click

from deploy.errors import RepositoryError
from deploy.trust.keys import PATH

_repository = click.option("--repository", default="model_repository", type=PATH, help="The repository.")


@click.command()
@_repository
@click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    type=PATH,
    help="Every record and the end of the audit log must be signed by this key; more keys by naming it again.",
)
def check(repository: Path, public_keys: tuple[Path, ...]) -> None:
    """Compare every file with its record, every record with its signatures, and what is served with the records.

    Each fault is a sentence that names the file; the exit code is 1 then.
    """
    from export.releases.verbs.check import check, summary

    findings = check(repository, public_keys)
    for sentence in [*findings.faults, *(f"Note: {note}" for note in findings.notes)]:
        click.echo(f"{sentence}.")
    click.echo(summary(findings))
    if faults := findings.faults:
        counted = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise RepositoryError(f"{repository} is not what was published: {counted}, named above.")


@click.command()
@_repository
@click.option("--category", help="Of this product alone.")
@click.option("--json", "as_json", is_flag=True, help="Every line with all that it holds, as JSON.")
def audit(repository: Path, category: str | None, as_json: bool) -> None:
    """Show who changed the repository, when, what and why; `check` says whether a line was changed or removed."""
    from export.releases.verbs.audit import audit_table, lines_of
    from export.releases.verbs.table import wide_console

    lines = lines_of(repository, category)
    if as_json:
        click.echo(json.dumps(lines, indent=2))
    else:
        wide_console().print(audit_table(lines))


@click.command()
@click.argument("file", type=PATH)
def keygen(file: Path) -> None:
    """Write a new private key to FILE, for its owner alone, and the public key to FILE.pub; nothing is overwritten."""
    from export.releases.audit.signatures import make_keys

    public = make_keys(file)
    click.echo(
        f"Wrote {file}, which signs (--signing-key or ASTMFR_SIGNING_KEY): keep it secret, it cannot be made again. "
        f"Wrote {public}, for `serve --require-signature` and `check --public-key`."
    )


COMMANDS: tuple[click.Command, ...] = (check, audit, keygen)
