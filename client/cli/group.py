"""The commands together: the one place where this client's errors become what a command prints and exits with.

A command exits with 0, with 2 for any error, and `predict` with 1 where it found anomalies. click and Python would exit
with 1 for an interruption, a reader that has left and a fault of the program: whoever sorts parts by the exit code
would take these for a verdict.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import Any

import click

from client.core.errors import ClientError
from client.files import StorageError

ERROR = 2


class Commands(click.Group):
    """Commands of which each ends with one sentence when something is wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a ClientError or StorageError is printed, and its exit code is the command's."""
        try:
            return super().invoke(ctx)
        except (ClientError, StorageError) as error:
            click.ClickException(error.message).show()
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            click.echo("Error: Interrupted.", err=True)
            ctx.exit(ERROR)
        except BrokenPipeError:  # `2>&1 | head`: whoever reads has what he wanted
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):  # a test's stream has no file behind it
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            ctx.exit(ERROR)
        except (click.exceptions.Exit, click.ClickException):
            raise
        except Exception:  # a fault of this program
            traceback.print_exc()
            ctx.exit(ERROR)
