"""Messages by HTTP POST, signed as the Standard Webhooks have it, one after the other."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import httpx

from client.core.errors import RequestError
from client.watching.sinks.message import Message, SinkDown

TIMEOUT_S = 15.0  # as the Standard Webhooks recommend
PREFIX = "whsec_"
LEAST_SECRET, LARGEST_SECRET = 24, 64  # bytes, of the same specification
CONTENT_TYPE = "application/json"


class Webhook:
    """Posts to one address. Anything but 2xx is a failure, and the message is posted again with the same id."""

    def __init__(self, url: str, *, secret: str | None) -> None:
        """Post to `url`, signed with a secret, `whsec_` and base64; without one nothing is signed.

        Raises:
            RequestError: no such address or secret can be.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RequestError(
                f"The webhook's address is {url!r}; expected http://HOST/PATH or https://HOST/PATH."
            )
        self._url, self._key = url, None if secret is None else read_secret(secret)
        place = parts.hostname if port is None else f"{parts.hostname}:{port}"
        self.name = f"The webhook {parts.scheme}://{place}{parts.path}"  # without passwords and parameters
        self._client = httpx.Client(timeout=TIMEOUT_S, follow_redirects=False)

    def deliver(self, messages: Sequence[Message]) -> Iterator[int]:
        """Post one message after the other."""
        for message in messages:
            self._post(message)
            yield message.number

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _post(self, message: Message) -> None:
        body = message.to_json().encode()
        moment = int(time.time())
        headers = {
            "content-type": CONTENT_TYPE,
            "webhook-id": message.id,
            "webhook-timestamp": str(moment),
        }
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, message.id, moment, body)
        try:
            answer = self._client.post(self._url, content=body, headers=headers)
        except httpx.TimeoutException:
            raise SinkDown(f"{self.name} did not answer within {TIMEOUT_S:g} s.") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SinkDown(f"{self.name} cannot be reached ({error}).") from None
        if answer.is_redirect:
            raise SinkDown(
                f"{self.name} sends to another address ({answer.status_code}); give that with --webhook."
            )
        if not answer.is_success:
            raise SinkDown(f"{self.name} answered {answer.status_code} {answer.reason_phrase}, expected 2xx.")


def signature(key: bytes, message_id: str, moment: int, body: bytes) -> str:
    """The header `webhook-signature`: version 1, HMAC with SHA-256 over id, time in seconds and body."""
    content = f"{message_id}.{moment}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def read_secret(secret: str) -> bytes:
    """The key of a secret, `whsec_` and base64.

    Raises:
        RequestError: it has another form; it is not shown.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not LEAST_SECRET <= len(key) <= LARGEST_SECRET:
        raise RequestError(
            f"The webhook's secret has another form; expected {PREFIX} and the base64 of {LEAST_SECRET} to "
            f"{LARGEST_SECRET} random bytes, as `echo {PREFIX}$(head -c 32 /dev/urandom | base64)` prints."
        )
    return key
