"""What gRPC says about an encrypted connection, in sentences; the server itself passes over this file."""

from __future__ import annotations

from model_repository.grpc_channel import split_url

UNPROVEN = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification")
EXPIRED, OTHER_HOST = "expired", "Hostname Verification"
NO_TLS = "WRONG_VERSION_NUMBER"
CERTIFICATE_ASKED = "CERTIFICATE_REQUIRED"
FOR_GOOD = (*UNPROVEN, NO_TLS, CERTIFICATE_ASKED)  # no later try ends otherwise


def tls_fault(message: str, *, url: str) -> str | None:
    """One sentence about a connection to `host:port` that TLS is in the way of; None where it is something else."""
    if any(words in message for words in UNPROVEN):
        return (
            f"What answers at {url} does not prove that it is {split_url(url)[0]}: {_why_unproven(message)}."
        )
    if NO_TLS in message:
        return f"What answers at {url} speaks no TLS; leave out --tls-ca, or give the port that does."
    if CERTIFICATE_ASKED in message:
        return (
            f"The server at {url} asks for this client's certificate; give it with --tls-cert and --tls-key."
        )
    return None


def _why_unproven(message: str) -> str:
    if EXPIRED in message:
        return "its certificate has expired; renew it, and set this machine's clock if that is wrong"
    if OTHER_HOST in message:
        return "its certificate is of another host; give the name or address that the certificate is for"
    return "its certificate is of another authority; give the one that signed it with --tls-ca"
