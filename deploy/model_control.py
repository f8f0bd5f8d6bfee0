"""Load, unload and list the models of a running server, by Triton's own model control over HTTP."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from deploy.errors import ServerError, SilentError

REQUEST_TIMEOUT_S = 10
CONTROL_TIMEOUT_S = 120  # Triton answers when the model is loaded and warmed up

DEFAULT_URL = "http://127.0.0.1:8000"
REMEDY = (
    "give its HTTP port with --http-url, 8000 unless another was chosen (8001 is gRPC's, 8002 the metrics')"
)
SETTINGS = "\x04"  # the type of the frame with which an HTTP/2 server begins, as of gRPC

# No proxy stands between a machine and itself.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ModelControl:
    """Triton's model repository extension at an address.

    Every method raises ServerError: the server does not answer, has no such model, or could not load it.
    """

    def __init__(
        self,
        http_url: str,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Talk to `http_url`, `http://host:port`; where no scheme is given, http is meant.

        An answer is waited for `timeout_s`, and longer where a model is loaded. `headers` go with each call, such as
        the one that opens a server's controls.
        """
        self._headers = dict(headers or {})
        self.http_url = _checked(http_url)
        self._timeout_s = timeout_s

    def index(self) -> list[dict[str, str]]:
        """Every version of every model that the server knows: `name` and, where tried, `version`, `state`, `reason`."""
        entries: list[dict[str, str]] = self._ask("/v2/repository/index", b"{}")
        return entries

    def ready(self) -> set[str]:
        """Names of the models that answer."""
        return {entry["name"] for entry in self.index() if entry.get("state") == "READY"}

    def load(self, model: str) -> None:
        """Load a model, of an ensemble its steps too, and wait until it is ready."""
        self._ask(f"/v2/repository/models/{quote(model, safe='')}/load", b"{}", timeout_s=CONTROL_TIMEOUT_S)

    def unload(self, model: str) -> None:
        """Unload a model once its requests are answered; the steps of an ensemble stay loaded."""
        self._ask(f"/v2/repository/models/{quote(model, safe='')}/unload", b"{}", timeout_s=CONTROL_TIMEOUT_S)

    def steps(self, ensemble: str) -> list[str]:
        """The models that a loaded ensemble is made of; of any other model, none."""
        config = self._ask(f"/v2/models/{quote(ensemble, safe='')}/config")
        return [step["model_name"] for step in config.get("ensemble_scheduling", {}).get("step", [])]

    def last_asked_s(self) -> dict[str, float]:
        """When each loaded model last answered, seconds since 1970; 0 for never."""
        asked: dict[str, float] = {}
        for entry in self.statistics():
            asked[entry["name"]] = max(asked.get(entry["name"], 0), entry["last_inference"] / 1000)
        return asked

    def statistics(self) -> list[dict[str, Any]]:
        """What each version of each loaded model has done, as Triton's statistics extension says it."""
        entries: list[dict[str, Any]] = self._ask("/v2/models/stats")["model_stats"]
        return entries

    def _ask(self, path: str, body: bytes | None = None, *, timeout_s: float | None = None) -> Any:
        request = urllib.request.Request(f"{self.http_url}{path}", data=body, headers=self._headers)
        try:
            with _opener.open(request, timeout=timeout_s or self._timeout_s) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.FORBIDDEN:
                error.close()
                raise ServerError(
                    f"tritonserver at {self.http_url} does that for those alone who have its admin key; name the file "
                    "that holds it with --key-file."
                ) from None
            if (fault := _fault(error)) is None or error.code == http.HTTPStatus.METHOD_NOT_ALLOWED:
                # The metrics' port takes no POST.
                what = f"answers {error.code} {error.reason}, not as a tritonserver does"
                raise ServerError(f"{self.http_url} {what}; {REMEDY}.") from None
            raise ServerError(f"tritonserver at {self.http_url} answered: {fault}.") from None
        except OSError as error:
            reason = getattr(error, "reason", error)  # urllib wraps the system's own error
            # Else it is a fault of our own: no descriptors are left, say.
            silent = isinstance(reason, (ConnectionError, TimeoutError))
            raise (SilentError if silent else ServerError)(
                f"tritonserver at {self.http_url} does not answer ({reason})."
            ) from None
        except http.client.HTTPException as error:
            grpc = isinstance(error, http.client.BadStatusLine) and error.args[0][3:4] == SETTINGS
            what = "answers as gRPC does" if grpc else "does not answer in HTTP"
            raise SilentError(f"{self.http_url} {what}; {REMEDY}.") from None
        try:
            return json.loads(answer) if answer else {}
        except ValueError:
            raise ServerError(f"{self.http_url} does not answer as a tritonserver does; {REMEDY}.") from None


def _checked(http_url: str) -> str:
    """`http://host:port` of an address that may lack its scheme.

    Raises:
        ServerError: it is no such address.
    """
    url = http_url if "://" in http_url else f"http://{http_url}"
    try:
        parts = urlsplit(url)
        sound = parts.scheme == "http" and parts.hostname and parts.port != 0 and not parts.path.strip("/")
    except ValueError:  # a port beyond 65535, say
        sound = False
    if not sound or set(url) & set(" ?#@"):
        raise ServerError(
            f"{http_url!r} is no address of a server; expected http://host:port, {DEFAULT_URL} say."
        )
    return url.rstrip("/")


def _fault(error: urllib.error.HTTPError) -> str | None:
    """What Triton says is wrong; None where it is not Triton that answers."""
    try:
        text = str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError):
        return None
    return " ".join(text.split()).rstrip(". ")
