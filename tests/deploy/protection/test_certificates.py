from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import ProtectionError
from deploy.protection.certificates import Certificates
from tests.certificates import Authority, Signed


def test_a_pair_of_an_authority_is_taken(pair: Signed, authority: Authority) -> None:
    assert Certificates(pair.certificate, pair.key, authority.path).check() is None


def test_a_certificate_that_ends_soon_is_told(authority: Authority) -> None:
    soon = authority.sign("soon", days=5)
    told = Certificates(soon.certificate, soon.key).check()
    assert told is not None
    assert "in 4 days" in told  # and some hours


@pytest.mark.parametrize(
    ("begins", "days", "words"),
    [(None, -1, r"ended on .*; renew it"), (1, 9, r"begins on .*; look at the clock")],
)
def test_a_certificate_of_another_time_is_refused(
    authority: Authority, begins: int | None, days: int, words: str
) -> None:
    signed = authority.sign("other_time", begins=begins, days=days)
    with pytest.raises(ProtectionError, match=words):
        Certificates(signed.certificate, signed.key).check()


def test_an_authority_whose_time_is_over_is_refused(pair: Signed, authority: Authority) -> None:
    ended = authority.sign("ended", days=-1).certificate
    with pytest.raises(ProtectionError, match=r"ended\.crt ended on"):
        Certificates(pair.certificate, pair.key, ended).check()


def test_a_key_of_another_certificate_is_refused(pair: Signed, authority: Authority) -> None:
    with pytest.raises(ProtectionError, match="is not the key of the certificate"):
        Certificates(pair.certificate, authority.sign("second").key).check()


def test_a_key_that_others_may_read_is_refused(authority: Authority) -> None:
    signed = authority.sign("open")
    signed.key.chmod(0o640)
    with pytest.raises(ProtectionError, match="chmod 600"):
        Certificates(signed.certificate, signed.key).check()


def test_what_is_no_pem_is_refused(pair: Signed, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.touch(mode=0o600)
    text.write_text("-----BEGIN CERTIFICATE-----\nnothing\n")
    with pytest.raises(ProtectionError, match="holds no certificate"):
        Certificates(text, pair.key).check()
    with pytest.raises(ProtectionError, match="holds no private key"):
        Certificates(pair.certificate, text).check()
    with pytest.raises(ProtectionError, match=r"certificate .*missing.pem cannot be read"):
        Certificates(tmp_path / "missing.pem", pair.key).check()
