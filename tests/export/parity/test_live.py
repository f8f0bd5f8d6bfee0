from __future__ import annotations

import pytest

from export.errors import ExportError
from export.parity.live import LiveJudge
from tests.products import unused_url


def test_an_address_of_another_form_is_named() -> None:
    with pytest.raises(
        ExportError, match=r"'http://localhost:8001' begins with http://, and gRPC takes no scheme"
    ):
        LiveJudge("http://localhost:8001", category="pill", release_id=1)


def test_a_proxy_is_named_and_never_used_for_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = unused_url()
    monkeypatch.setenv("http_proxy", f"http://user:secret@{proxy}")
    with pytest.raises(ExportError) as caught:
        LiveJudge("line-3.invalid:8001", category="pill", release_id=1)
    assert f"No Triton server answers at line-3.invalid:8001 through the proxy {proxy} (http_proxy)" in str(
        caught.value
    )
    with pytest.raises(ExportError) as caught:
        LiveJudge(unused_url(), category="pill", release_id=1)
    assert proxy not in str(caught.value)
