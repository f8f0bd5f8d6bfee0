"""Options that name keys: who signs, and whose signatures are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.errors import RepositoryError

if TYPE_CHECKING:
    from export.releases.audit.signatures import Signer

PATH = click.Path(path_type=Path)

signing_key_option = click.option(
    "--signing-key",
    type=PATH,
    envvar="ASTMFR_SIGNING_KEY",
    show_envvar=True,
    help="Private key that signs the record and the audit log, see `keygen`.  [default: nothing is signed]",
)
require_signature_option = click.option(
    "--require-signature",
    multiple=True,
    type=PATH,
    metavar="PUBLIC_KEY",
    help="Do not start unless what is live is signed by this key and every file of it is what its record says; more "
    "keys by naming it again.",
)


def load_signer(path: Path | None) -> Signer | None:
    """The key that signs; None where none is stated.

    Raises:
        PublishError: the file holds none.
    """
    if path is None:
        return None
    from export.releases.audit.signatures import Signer

    return Signer.load(path)


def require_signatures(repository: Path, public_keys: tuple[Path, ...]) -> None:
    """What a server would load is signed, where keys are stated.

    Raises:
        RepositoryError: it is not, or it is not what was signed.
    """
    if public_keys:
        from export.releases.verbs.check import require_signed

        if not (repository / ".releases").is_dir():
            raise RepositoryError(
                f"{repository} holds no records, and --require-signature asks for signed ones; publish a category with "
                "--signing-key."
            )
        require_signed(repository, public_keys)
