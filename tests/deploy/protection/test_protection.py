from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import ProtectionError
from deploy.protection.certificates import Certificates
from deploy.protection.protection import Protection
from deploy.protection.secrets import NAME, admin_headers, new_key, read_admin_key, redacted
from model_repository.grpc_endpoint import KEY_FILE, KEYS
from tests.certificates import Signed

KEY = "a-key_of_24_characters_0"


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS, raising=False)
    monkeypatch.delenv(KEY_FILE, raising=False)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "admin.key"
    path.touch(mode=0o600)
    path.write_text(f"# of line 3\n{NAME}={KEY}\nother=word\n")
    return path


def restricted(protection: Protection) -> str:
    """What is closed over gRPC, with the key; nothing where all is open."""
    rules = [option for option in protection.server_options() if "grpc-restricted" in option]
    return rules[0].partition("=")[2] if rules else ""


def test_controls_are_open_on_this_machine_and_client_memory_is_not() -> None:
    assert restricted(Protection.choose("127.0.0.1")).startswith(f"shared-memory:{NAME}=")
    assert restricted(Protection.choose("127.0.0.1", client_shm=True)) == ""


def test_a_key_closes_the_controls(key_file: Path) -> None:
    rule = restricted(Protection.choose("127.0.0.1", key_file=key_file, client_shm=True))
    assert rule == f"model-repository,statistics,trace,logging:{NAME}={KEY}"


def test_controls_are_closed_to_the_network_without_a_key() -> None:
    first, second = (restricted(Protection.choose("10.0.0.1", insecure=True)) for _ in range(2))
    assert first.startswith("model-repository,statistics,trace,logging,shared-memory:")
    assert first != second, "a key that can be known beforehand"


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.1", "192.168.1.7"])
def test_the_network_is_not_listened_to_without_tls(address: str) -> None:
    with pytest.raises(ProtectionError, match=f"On {address} the network .* --insecure"):
        Protection.choose(address)


def test_http_stays_on_this_machine_where_grpc_is_encrypted(pair: Signed) -> None:
    protection = Protection.choose("0.0.0.0", certificates=Certificates(pair.certificate, pair.key))
    assert protection.http_address == "127.0.0.1"
    assert Protection.choose("127.0.0.1").http_address is None


def test_the_environment_holds_a_key_or_names_its_file(
    monkeypatch: pytest.MonkeyPatch, key_file: Path
) -> None:
    monkeypatch.setenv(KEYS, f"other=word,{NAME}=another-key_of_28_characters")
    assert read_admin_key() == "another-key_of_28_characters"
    assert read_admin_key(key_file) == KEY
    assert admin_headers(key_file) == {NAME: KEY}
    monkeypatch.setenv(KEY_FILE, str(key_file))
    assert read_admin_key() == KEY


def test_no_key_opens_nothing() -> None:
    assert read_admin_key(None) is None
    assert admin_headers(None) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# nothing else", r"holds no astmfr-admin=<key>; make one: \(umask 077"),
        ("another=0123456789abcdef", r"holds no astmfr-admin=<key>; make one: \(umask 077"),
        (f"{NAME}=short", "has 5 characters; expected 16 to 256"),
        (f"{NAME}=key=with,commas:and=equals", "has 26 characters; expected 16 to 256"),
        (f"{NAME}={'x' * 257}", "has 257 characters; expected 16 to 256"),
        ("0123456789abcdef", "is no key; expected name=value"),
    ],
)
def test_what_is_no_key_is_refused(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    key_file.write_text(text)
    with pytest.raises(ProtectionError, match=words) as refused:
        read_admin_key(key_file)
    assert text.partition("=")[2] not in refused.value.message or "=" not in text
    monkeypatch.setenv(KEY_FILE, str(key_file))
    with pytest.raises(ProtectionError, match=words):
        read_admin_key()


def test_a_key_file_of_everybody_is_refused(key_file: Path) -> None:
    key_file.chmod(0o644)
    with pytest.raises(ProtectionError, match="chmod 600"):
        read_admin_key(key_file)


def test_a_missing_key_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProtectionError, match=r"missing cannot be read \(No such file or directory\)"):
        read_admin_key(tmp_path / "missing")


def test_keys_are_no_part_of_what_is_shown(key_file: Path) -> None:
    protection = Protection.choose("127.0.0.1", key_file=key_file)
    assert KEY not in repr(protection)
    command = redacted(" ".join(["tritonserver", *protection.server_options(), "--log-verbose=1"]))
    assert KEY not in command
    assert command.endswith("--log-verbose=1")


def test_a_new_key_is_one() -> None:
    for _ in range(50):
        assert Protection(admin_key=new_key(), controls_open=False).server_options()
        assert len(new_key()) >= 16


def test_a_connection_may_live_for_so_long_and_answer_what_it_has() -> None:
    options = Protection.choose("127.0.0.1", connection_age_s=90.5).server_options()
    assert "--grpc-max-connection-age=90500" in options
    (grace,) = [option for option in options if option.startswith("--grpc-max-connection-age-grace=")]
    assert int(grace.partition("=")[2]) >= 10_000
    assert not any("age" in option for option in Protection.choose("127.0.0.1").server_options())
