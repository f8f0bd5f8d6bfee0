"""Ed25519 keys and signatures: of a record, beside it as <number>.json.sig, and of the audit log's head.

A signature file holds each signature with the public key that it fits, so that damage is found without any key; whether
a key is one to be trusted is for who checks to say.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from export.errors import PublishError

RECORD = b"astmfr record\n"  # goes before what is signed: no signature of one kind is one of another
HEAD = b"astmfr audit log\n"
PACKED = ".packed"  # ends the name of a record as it was signed elsewhere, where an import had to renumber it
PUBLIC = ".pub"  # ends the name of the public key's file
NO_KEY = "give a file that `python -m deploy keygen` wrote"


@dataclass(frozen=True)
class Signer:
    """A private key.

    Attributes:
        private: the key.
        key: its public key, 32 bytes in base64.
    """

    private: Ed25519PrivateKey
    key: str

    @classmethod
    def load(cls, path: Path) -> Signer:
        """Read a private key.

        Raises:
            PublishError: there is none in this file.
        """
        try:
            private = serialization.load_pem_private_key(_read(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise PublishError(f"{path} holds no private key that can be used ({error}); {NO_KEY}.") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise PublishError(f"{path} holds a key of another kind than Ed25519; {NO_KEY}.")
        return cls(private, _text_of(private.public_key()))

    def sign(self, kind: bytes, content: bytes) -> str:
        """The signature of a content, in base64."""
        return base64.b64encode(self.private.sign(kind + content)).decode()


def load_public_key(path: Path) -> str:
    """A public key, 32 bytes in base64.

    Raises:
        PublishError: there is none in this file.
    """
    content = _read(path)
    if b"PRIVATE KEY" in content:
        raise PublishError(f"{path} holds a private key; give the public one, {path.name}{PUBLIC}.")
    try:
        public = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PublishError(f"{path} holds no public key ({error}); {NO_KEY}.") from None
    if not isinstance(public, Ed25519PublicKey):
        raise PublishError(f"{path} holds a key of another kind than Ed25519; {NO_KEY}.")
    return _text_of(public)


def make_keys(path: Path) -> Path:
    """Write a new private key, which its owner alone can read, and its public key beside it; gives the latter's file.

    Raises:
        PublishError: one of both files is there, or cannot be written; nothing was.
    """
    public_path = path.with_name(path.name + PUBLIC)
    private = Ed25519PrivateKey.generate()
    private_pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if os.path.lexists(public_path):
        raise PublishError(f"{public_path} is there already and stays as it is; choose another name.")
    _write_new(path, private_pem, mode=0o600)
    try:
        _write_new(public_path, public_pem, mode=0o644)
    except PublishError:
        path.unlink()
        raise
    return public_path


def signatures_path(record: Path) -> Path:
    """Where the signatures of a record lie."""
    return record.with_name(record.name + ".sig")


def signatures_to_bytes(signatures: Mapping[str, str]) -> bytes:
    """The file of signatures by public key."""
    return json.dumps(dict(sorted(signatures.items())), indent=1).encode() + b"\n"


def read_signatures(path: Path) -> dict[str, str]:
    """Signatures by public key; none where there is no file.

    Raises:
        PublishError: it is no such file.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PublishError(f"{path} cannot be read ({error.strerror or error}); restore it.") from None
    return parse_signatures(content, str(path))


def parse_signatures(content: bytes, named: str) -> dict[str, str]:
    """Signatures by public key, from a file's content; `named` is what a sentence calls it.

    Raises:
        PublishError: it is no such file's.
    """
    try:
        signatures = json.loads(content)
        if isinstance(signatures, dict) and signatures_to_bytes(signatures) == content:
            return signatures
    except (ValueError, TypeError, RecursionError):
        pass
    raise PublishError(
        f"{named} was changed: it is no file of signatures; restore it, or remove it and sign again."
    )


def is_valid(key: str, signature: object, kind: bytes, content: bytes) -> bool:
    """Whether a signature is one of a content by a public key, both in base64."""
    try:
        if not isinstance(signature, str):
            return False
        Ed25519PublicKey.from_public_bytes(_decoded(key)).verify(_decoded(signature), kind + content)
    except (ValueError, InvalidSignature):
        return False
    return True


def short(key: str) -> str:
    """A public key as messages name it."""
    return key[:16]


def _decoded(text: str) -> bytes:
    """Of base64 in its one proper form: no bit of it can be flipped unnoticed."""
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:
        raise binascii.Error("not in its proper form")
    return content


def _text_of(public: Ed25519PublicKey) -> str:
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PublishError(f"key {path} cannot be read ({error.strerror or error}); {NO_KEY}.") from None


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise PublishError(f"{path} is there already and stays as it is; choose another name.") from None
    except OSError as error:
        raise PublishError(
            f"{path} cannot be written ({error.strerror or error}); choose another folder."
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise PublishError(f"{path} cannot be written ({error.strerror or error}); make room.") from None
