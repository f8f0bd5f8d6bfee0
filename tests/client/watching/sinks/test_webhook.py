"""The webhook, against an HTTP server in a process of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from client.core.errors import RequestError
from client.watching.sinks.message import SinkDown
from client.watching.sinks.webhook import Webhook, read_secret, signature
from tests.client.watching.sinks.told import message, told
from tests.products import unused_url

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# Notes each request in a file; the path says how it is answered.
SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        with open(sys.argv[2], "a") as file:
            file.write(json.dumps({"headers": {k.lower(): v for k, v in self.headers.items()}, "body": body}) + "\\n")
        self.send_response(int(self.path.partition("?")[0].strip("/") or 204))
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
"""


@contextmanager
def receiver(url: str, log: Path) -> Iterator[None]:
    command = [sys.executable, "-c", SERVER, url.rpartition(":")[2], str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of https://www.standardwebhooks.com (Svix's libraries test with it too)."""
    found = signature(
        read_secret(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_message_is_posted_with_its_id_time_and_signature_and_waits_while_nobody_is_there(
    tmp_path: Path,
) -> None:
    place, log = unused_url(), tmp_path / "log"
    with told(tmp_path, Webhook(f"http://{place}/", secret=SECRET)) as sink:
        sink.record("a.png", "b.png")
        assert sink.says("cannot be reached")
        with receiver(place, log):
            assert sink.has_delivered_all()
            assert sink.says("takes messages again")
            first, second = read(log)
        sink.record("c.png")
        assert sink.delivery.count() == 1
        with receiver(place, log):
            assert sink.has_delivered_all()
    requests = read(log)
    bodies = [json.loads(request["body"]) for request in requests]
    assert [body["data"]["number"] for body in bodies] == [1, 2, 3]
    assert bodies[0]["type"] == "picture.judged"
    assert bodies[0]["data"]["verdict"] == "good"
    assert bodies[0]["data"]["image"].endswith("/a.png")
    headers = first["headers"]
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == f"{sink.journal.id}-1" == bodies[0]["data"]["id"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{first['body']}".encode()
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert second["headers"]["webhook-id"] != headers["webhook-id"]


@pytest.mark.parametrize(
    ("status", "words"), [(500, "answered 500"), (404, "expected 2xx"), (301, "another address")]
)
def test_what_is_not_taken_is_told(tmp_path: Path, status: int, words: str) -> None:
    place, log = unused_url(), tmp_path / "log"
    sink = Webhook(f"http://{place}/{status}?token=secret", secret=None)
    with receiver(place, log), pytest.raises(SinkDown, match=words) as caught:
        list(sink.deliver([message()]))
    sink.close()
    assert "secret" not in str(caught.value)
    assert "webhook-signature" not in read(log)[0]["headers"]


def test_a_picture_that_was_not_judged_is_told_too_and_any_name_is_text() -> None:
    body = json.loads(message(judged=False).to_json())
    assert body["type"] == "picture.unjudged"
    assert (body["data"]["verdict"], body["data"]["fault"]) == ("unjudged", "torn")
    assert body["data"]["image"] == "drop/t\\udcfc.png"
    assert "score" not in body["data"]


@pytest.mark.parametrize("url", ["ftp://host/x", "http:///x", "host/x", "http://host:port/"])
def test_no_such_address(url: str) -> None:
    with pytest.raises(RequestError, match="The webhook's address is"):
        Webhook(url, secret=None)


@pytest.mark.parametrize("secret", ["", "plain", "whsec_", "whsec_%%%", "whsec_c2hvcnQ="])
def test_no_such_secret(secret: str) -> None:
    with pytest.raises(RequestError, match="has another form") as caught:
        Webhook("http://host/", secret=secret)
    assert secret != "plain" or secret not in str(caught.value)
