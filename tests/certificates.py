"""Certificates as an authority gives them out, in files."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Issued:
    """A certificate and its key; ``both`` is a file with the two."""

    cert: Path
    key: Path
    both: Path
    serial: int


class Authority:
    """One that signs certificates for names and addresses; ``file`` is its own certificate."""

    def __init__(self, folder: Path, name: str = "an authority of the tests") -> None:
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._signed(self._key, name, (), ca=True).public_bytes(PEM))

    def issue(self, stem: str, *names: str) -> Issued:
        """A certificate in files that begin with ``stem``, over former ones."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(key, stem, names or ("localhost", "127.0.0.1"))
        issued = Issued(
            self._folder / f"{stem}.cert.pem",
            self._folder / f"{stem}.key.pem",
            self._folder / f"{stem}.pem",
            certificate.serial_number,
        )
        issued.cert.write_bytes(certificate.public_bytes(PEM))
        issued.key.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        issued.both.write_bytes(issued.cert.read_bytes() + issued.key.read_bytes())
        return issued

    def _signed(
        self, key: ec.EllipticCurvePrivateKey, subject: str, names: tuple[str, ...], *, ca: bool = False
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_named(name) for name in names]), False)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
