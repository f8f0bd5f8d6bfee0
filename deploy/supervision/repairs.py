"""Reload one model of a running server, so that its ensembles go on being there."""

from __future__ import annotations

import os
from pathlib import Path

from deploy.errors import ServerError
from deploy.model_control import ModelControl


def reload(control: ModelControl, repository: Path, model: str) -> None:
    """Load a model anew; its processes are new ones.

    The server reloads what has changed, so that the date of the version's folder is renewed: the old instances answer
    until the new ones do. Where the repository cannot be written the model is unloaded first, and with it its
    ensembles, for as long as it takes to load.

    Raises:
        ServerError: it cannot be loaded, or the server does not answer.
    """
    versions = [
        entry["version"]
        for entry in control.index()
        if entry["name"] == model and entry.get("state") == "READY" and "version" in entry
    ]
    try:
        for version in versions:
            os.utime(repository / model / version)
    except OSError:  # mounted read-only, or another user's
        control.unload(model)
    try:
        control.load(model)
    except ServerError:
        # The old one is still there, with its dead processes: nobody is to be sent to it.
        control.unload(model)
        raise
