"""The files that a server is encrypted with: checked before it starts, for it says of a bad one only that it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from deploy.errors import ProtectionError

OTHERS_MAY = 0o077
DAYS_TOLD = 30  # before a certificate ends


@dataclass(frozen=True)
class Certificates:
    """PEM files of a server.

    Attributes:
        certificate: its own, with those between it and its authority.
        key: private, of `certificate`, without a password.
        client_authority: whose certificates clients must show; None lets any client in.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None

    def check(self, *, now: datetime | None = None) -> str | None:
        """Refuse files with which no client could connect.

        Returns:
            A sentence where the certificate ends within 30 days; else None.

        Raises:
            ProtectionError: a file cannot be read or is none, the key is another certificate's or open to other users,
                or a certificate is not yet, or no longer, valid.
        """
        now = now or datetime.now(UTC)
        own = _certificates(self.certificate)[0]
        _require_valid(own, self.certificate, now)
        key = _private_key(self.key)
        if _public_bytes(key.public_key()) != _public_bytes(own.public_key()):
            raise ProtectionError(
                f"{self.key} is not the key of the certificate {self.certificate}; give the pair."
            )
        if self.client_authority is not None:
            for authority in _certificates(self.client_authority):
                _require_valid(authority, self.client_authority, now)
        left = own.not_valid_after_utc - now
        if left.days < DAYS_TOLD:
            return f"The certificate {self.certificate} ends on {own.not_valid_after_utc:%Y-%m-%d}, in {left.days} days"
        return None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path, "certificate"))
    except ValueError:
        raise ProtectionError(f"{path} holds no certificate; expected one in PEM form.") from None


def _private_key(path: Path) -> PrivateKeyTypes:
    data = _read(path, "key")
    if path.stat().st_mode & OTHERS_MAY:
        raise ProtectionError(
            f"The private key {path} may be read by other users; let its owner alone: chmod 600 {path}."
        )
    try:
        return serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError):
        raise ProtectionError(
            f"{path} holds no private key that can be used; expected one in PEM form, without a password."
        ) from None


def _require_valid(certificate: x509.Certificate, path: Path, now: datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        raise ProtectionError(f"The certificate {path} ended on {ends:%Y-%m-%d %H:%M} UTC; renew it.")
    if now < begins:
        raise ProtectionError(
            f"The certificate {path} begins on {begins:%Y-%m-%d %H:%M} UTC, and this machine has "
            f"{now:%Y-%m-%d %H:%M}; look at the clock."
        )


def _public_bytes(key: PublicKeyTypes) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.DER, form)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProtectionError(f"The {what} {path} cannot be read ({error.strerror or error}).") from None
