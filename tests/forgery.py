"""Forged certificates, signed with the private key of the loopback certificate."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID


def is_trusted(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bool:
    """Return whether a TLS client trusts a server with the context `server` as host `name`."""
    ours, theirs = socket.socketpair()

    def handshake() -> None:
        with contextlib.suppress(OSError), server.wrap_socket(theirs, server_side=True) as secure:
            secure.recv(1)

    thread = threading.Thread(target=handshake)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as secure:
            return secure.version() is not None
    except ssl.SSLCertVerificationError:
        return False
    finally:
        ours.close()
        thread.join()


def make_forged_context(folder: Path, name: str) -> ssl.SSLContext:
    """Return a server context with a certificate for `name`, signed with the loopback key."""
    issuer = x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    chain = folder / "forged.pem"
    pem = serialization.Encoding.PEM
    chain.write_bytes(forged.public_bytes(pem) + issuer.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, folder / "key.pem")
    return context
