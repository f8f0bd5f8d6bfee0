"""Load, unload and list the models of a running server, by Triton's own model control over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from deploy.errors import ServerError

REQUEST_TIMEOUT_S = 10
CONTROL_TIMEOUT_S = 120  # Triton answers when the model is loaded and warmed up

# No proxy stands between a machine and itself.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ModelControl:
    """Triton's model repository extension at an address.

    Every method raises ServerError: the server does not answer, has no such model, or could not load it.
    """

    def __init__(self, http_url: str) -> None:
        """Talk to `http_url`, `http://host:port`."""
        self.http_url = http_url

    def index(self) -> list[dict[str, str]]:
        """Every version of every model that the server knows: `name` and, where tried, `version`, `state`, `reason`."""
        entries: list[dict[str, str]] = self._ask("/v2/repository/index", b"{}")
        return entries

    def ready(self) -> set[str]:
        """Names of the models that answer."""
        return {entry["name"] for entry in self.index() if entry.get("state") == "READY"}

    def load(self, model: str) -> None:
        """Load a model, of an ensemble its steps too, and wait until it is ready."""
        self._ask(f"/v2/repository/models/{model}/load", b"{}", timeout_s=CONTROL_TIMEOUT_S)

    def unload(self, model: str) -> None:
        """Unload a model once its requests are answered; the steps of an ensemble stay loaded."""
        self._ask(f"/v2/repository/models/{model}/unload", b"{}", timeout_s=CONTROL_TIMEOUT_S)

    def steps(self, ensemble: str) -> list[str]:
        """The models that a loaded ensemble is made of; of any other model, none."""
        config = self._ask(f"/v2/models/{ensemble}/config")
        return [step["model_name"] for step in config.get("ensemble_scheduling", {}).get("step", [])]

    def last_asked_s(self) -> dict[str, float]:
        """When each loaded model last answered, seconds since 1970; 0 for never."""
        asked: dict[str, float] = {}
        for entry in self._ask("/v2/models/stats")["model_stats"]:
            asked[entry["name"]] = max(asked.get(entry["name"], 0), entry["last_inference"] / 1000)
        return asked

    def _ask(self, path: str, body: bytes | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
        request = urllib.request.Request(f"{self.http_url}{path}", data=body)
        try:
            with _opener.open(request, timeout=timeout_s) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            raise ServerError(f"tritonserver at {self.http_url} answered: {_fault(error)}.") from None
        except OSError as error:
            reason = getattr(error, "reason", error)  # urllib wraps the system's own error
            raise ServerError(f"tritonserver at {self.http_url} does not answer ({reason}).") from None
        return json.loads(answer) if answer else {}


def _fault(error: urllib.error.HTTPError) -> str:
    text = error.read().decode(errors="replace")
    try:
        text = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        text = text or str(error)
    return " ".join(text.split()).rstrip(". ")
