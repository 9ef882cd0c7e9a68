"""The certificate authority: what it issues is accepted by TLS, and by nobody else's trust."""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from swarmkit.errors import OperationFailed
from swarmkit.images.ca import Authority, Issued, fingerprint

NAME = "registry.swarmkit.internal"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


def parsed(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def policy(authority: Authority, at: datetime | None = None) -> PolicyBuilder:
    builder = PolicyBuilder().store(Store([parsed(authority.certificate)]))
    return builder.time(at) if at else builder


def test_a_server_certificate_is_valid_for_its_name_only(authority: Authority) -> None:
    server = parsed(authority.issue_server([NAME]).certificate)
    policy(authority).build_server_verifier(x509.DNSName(NAME)).verify(server, [])
    with pytest.raises(VerificationError):
        policy(authority).build_server_verifier(x509.DNSName("elsewhere.example")).verify(server, [])


def test_a_client_certificate_names_its_node(authority: Authority) -> None:
    client = parsed(authority.issue_client("wn1").certificate)
    assert client.subject.rfc4514_string() == "CN=wn1"
    usage = client.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_name_longer_than_x509_allows_is_shortened(authority: Authority) -> None:
    assert parsed(authority.issue_client("n" * 80).certificate).subject.rfc4514_string() == "CN=" + "n" * 64


def test_another_authority_of_the_same_name_does_not_count(authority: Authority) -> None:
    server = parsed(Authority.make().issue_server([NAME]).certificate)
    with pytest.raises(VerificationError):
        policy(authority).build_server_verifier(x509.DNSName(NAME)).verify(server, [])


def test_the_authority_may_not_make_further_authorities(authority: Authority) -> None:
    constraints = parsed(authority.certificate).extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)


def test_certificates_last_as_long_as_their_authority_and_bear_slow_clocks() -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    authority = Authority.make(start)
    server = authority.issue_server([NAME], start + timedelta(days=400))
    for at in (start + timedelta(days=399, hours=1), start + timedelta(days=3649)):
        verifier = policy(authority, at).build_server_verifier(x509.DNSName(NAME))
        verifier.verify(parsed(server.certificate), [])
    late = policy(authority, start + timedelta(days=3651)).build_server_verifier(x509.DNSName(NAME))
    with pytest.raises(VerificationError):
        late.verify(parsed(server.certificate), [])


def context(kind: int, authority: Authority, own: Issued | None, folder: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(kind)
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata=authority.certificate)
    if own:
        both = folder / "own.pem"
        both.write_text(own.certificate + own.key)
        made.load_cert_chain(both)
    return made


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """A whole TLS handshake in memory, and a byte each way; raises ssl.SSLError where a side refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=NAME),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(6):
        for side in sides:
            try:
                side.do_handshake()
                side.write(b"x")
                side.read(1)
            except ssl.SSLWantReadError:
                pass
    assert all(side.getpeercert() for side in sides)


def test_tls_with_certificates_of_both_sides(authority: Authority, tmp_path: Path) -> None:
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue_server([NAME]), tmp_path)
    client = context(ssl.PROTOCOL_TLS_CLIENT, authority, authority.issue_client("wn1"), tmp_path)
    shake_hands(server, client)


@pytest.mark.parametrize("whose", ["nobody's", "another authority's", "a server's"])
def test_tls_refuses_a_client_with(whose: str, authority: Authority, tmp_path: Path) -> None:
    own = {
        "nobody's": None,
        "another authority's": Authority.make().issue_client("wn1"),
        "a server's": authority.issue_server([NAME]),
    }[whose]
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue_server([NAME]), tmp_path)
    client = context(ssl.PROTOCOL_TLS_CLIENT, authority, own, tmp_path)
    with pytest.raises(ssl.SSLError):
        shake_hands(server, client)


def test_an_authority_read_back_issues_as_before(authority: Authority) -> None:
    again = Authority.load(authority.certificate, authority.key)
    server = parsed(again.issue_server([NAME]).certificate)
    policy(authority).build_server_verifier(x509.DNSName(NAME)).verify(server, [])


@pytest.mark.parametrize("damage", ["empty", "cut", "another key", "swapped"])
def test_a_damaged_authority_is_refused_without_showing_its_key(damage: str, authority: Authority) -> None:
    certificate, key = {
        "empty": ("", ""),
        "cut": (authority.certificate, authority.key[:90]),
        "another key": (authority.certificate, Authority.make().key),
        "swapped": (authority.key, authority.certificate),
    }[damage]
    with pytest.raises(OperationFailed) as caught:
        Authority.load(certificate, key, where="m1")
    assert caught.value.where == "m1"
    shown = f"{caught.value!r} {caught.value} {caught.value.hint}"
    assert "PRIVATE" not in shown
    assert key[40:80] == "" or key[40:80] not in shown


def test_keys_show_in_no_repr(authority: Authority) -> None:
    client = authority.issue_client("wn1")
    assert authority.key not in repr(authority)
    assert "PRIVATE" not in repr(authority) + repr(client)


def test_the_fingerprint_is_what_sha256sum_prints_for_the_file(authority: Authority) -> None:
    assert fingerprint(authority.certificate) == hashlib.sha256(authority.certificate.encode()).hexdigest()
