"""The commands together: the one place where this client's errors become what a command prints and exits with."""

from __future__ import annotations

from typing import Any

import click

from client.core.errors import ClientError
from client.files import StorageError


class Commands(click.Group):
    """Commands of which each ends with one sentence when something is wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a ClientError or StorageError is printed, and its exit code is the command's."""
        try:
            return super().invoke(ctx)
        except (ClientError, StorageError) as error:
            click.ClickException(error.message).show()
            ctx.exit(error.exit_code)
