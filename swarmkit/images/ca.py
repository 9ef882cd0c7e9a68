"""The cluster's certificate authority: makes itself, servers' and clients' certificates. Pure.

Everything is PEM text; private keys exist in memory only and never show in a `repr`. Certificates
follow RFC 5280, with the extended key usages that Go's TLS (engine and registry) asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarmkit.errors import OperationFailed

LIFETIME = timedelta(days=3650)
# Clocks of new machines are often behind.
CLOCK_SKEW = timedelta(days=1)
# X.520's upper bound of a common name.
NAME_LENGTH = 64


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key, in PEM."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its certificate and private key, in PEM."""

    certificate: str
    key: str = field(repr=False)

    @classmethod
    def make(cls, now: datetime | None = None) -> Authority:
        """A new authority (EC P-256, valid for 10 years) that may sign no further authorities."""
        now = now or datetime.now(UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _named("swarmkit cluster CA")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(_pem(certificate), _pem_key(key))

    @classmethod
    def load(cls, certificate: str, key: str, where: str = "") -> Authority:
        """An authority that was made earlier; raises OperationFailed where the two do not fit."""
        try:
            public = x509.load_pem_x509_certificate(certificate.encode()).public_key()
            fits = _load_key(key).public_key() == public
        except (ValueError, TypeError):
            fits = False
        if not fits:
            raise OperationFailed(
                "the certificate authority's certificate and key are damaged, or are not of one pair",
                where=where,
                hint="remove them there (ca.crt and ca.key) and run the command again: a copy on another "
                "manager is used, or a new authority is made",
            )
        return cls(certificate, key)

    def issue_server(self, names: Sequence[str], now: datetime | None = None) -> Issued:
        """A certificate for a server that is reached under the DNS names `names`."""
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        return self._issue(names[0], ExtendedKeyUsageOID.SERVER_AUTH, [alternatives], now)

    def issue_client(self, name: str, now: datetime | None = None) -> Issued:
        """A certificate for the client (a node) called `name`."""
        return self._issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, [], now)

    def _issue(
        self,
        name: str,
        purpose: x509.ObjectIdentifier,
        extensions: Sequence[x509.ExtensionType],
        now: datetime | None,
    ) -> Issued:
        now = now or datetime.now(UTC)
        authority = x509.load_pem_x509_certificate(self.certificate.encode())
        key = ec.generate_private_key(ec.SECP256R1())
        identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - CLOCK_SKEW, authority.not_valid_before_utc))
            # A cluster must not stop because nobody came to renew: only the authority's end counts.
            .not_valid_after(authority.not_valid_after_utc)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
            )
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(_load_key(self.key), hashes.SHA256())
        return Issued(_pem(certificate), _pem_key(key))


def self_signed(name: str, now: datetime | None = None) -> Issued:
    """A certificate for a server called `name` that nobody vouches for, valid as long as an authority's."""
    now = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issued(_pem(certificate), _pem_key(key))


def fingerprint(pem: str) -> str:
    """SHA-256 of a PEM file's bytes, in hexadecimal: what `sha256sum` prints for the file."""
    return hashlib.sha256(pem.encode()).hexdigest()


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:NAME_LENGTH])])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic-curve key")
    return key


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _pem_key(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
