"""Certificates as somebody would make them who has read the key of the loopback's."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID


def is_believed(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bool:
    """Whether a client takes who serves with one context for `name`."""
    ours, theirs = socket.socketpair()

    def greet() -> None:
        with contextlib.suppress(OSError), server.wrap_socket(theirs, server_side=True) as secure:
            secure.recv(1)

    thread = threading.Thread(target=greet)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as secure:
            return secure.version() is not None
    except ssl.SSLCertVerificationError:
        return False
    finally:
        ours.close()
        thread.join()


def forge(folder: Path, name: str) -> ssl.SSLContext:
    """What somebody who has read the key would serve, with a certificate signed by it."""
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
