"""Let a server answer what it has accepted before it is told to end."""

from __future__ import annotations

import time

from deploy.errors import ServerError
from deploy.model_control import ModelControl

ANSWER_S = 2.0
POLL_S = 0.05


def drain(control: ModelControl, *, within_s: float) -> bool:
    """Unload the ensembles of a server and wait until their requests are answered; whether all were.

    A server that is told to end refuses the steps of what is in flight: an ensemble's request ends in an error then.
    New requests are refused: as UNAVAILABLE where they name the ensemble's version, else as NOT_FOUND with "has no
    available versions".
    """
    deadline_s = time.monotonic() + within_s
    try:
        ensembles = {name for name in control.ready() if control.steps(name)}
        for name in ensembles:
            control.unload(name)
        while time.monotonic() < deadline_s:
            states = {entry.get("state") for entry in control.index() if entry["name"] in ensembles}
            if "UNLOADING" not in states:
                return True
            time.sleep(POLL_S)
    except ServerError:  # it does not answer, and is stopped nevertheless
        return False
    return False
