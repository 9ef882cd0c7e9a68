"""What proxies get of secrets: certificates and password files, checked before nginx sees them. Pure.

A file that nginx cannot use would keep back the whole of a configuration, and so the changes of everybody
else. No message here has any of a file's content.
"""

from __future__ import annotations

import os
import re
import ssl
from functools import lru_cache

# What crypt(3) and nginx know (ngx_http_auth_basic_module): `$6$…`, DES, `{SSHA}…`.
_USER_FORM = re.compile(r"[^:\s][^:]*:(\$[0-9a-z]+\$\S+|\{(PLAIN|SHA|SSHA)\}\S+|[./0-9A-Za-z]{13})(:.*)?")


@lru_cache(maxsize=256)
def wrong_with_certificate(pem: str) -> str:
    """Why a file cannot be a server's certificate chain and key (PEM, without a passphrase); "" if it can."""
    if "-----BEGIN CERTIFICATE-----" not in pem:
        return "has no certificate (PEM)"
    if "PRIVATE KEY-----" not in pem:
        return "has no private key (PEM) beside its certificate"
    if "ENCRYPTED" in pem:
        return "has a private key with a passphrase, which nobody could give"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # OpenSSL reads files only; this one has no place on a disk.
    handle = os.memfd_create("certificate")
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(pem.encode(errors="replace"))
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    except ssl.SSLError as error:
        return f"is no certificate with its key: {error.reason or 'OpenSSL cannot read it'}"
    finally:
        os.close(handle)
    return ""


def wrong_with_passwords(text: str) -> str:
    """Why a file cannot be one of users and their passwords' hashes (htpasswd); "" if it can."""
    users = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        if not _USER_FORM.fullmatch(line):
            return f"is no file of passwords: line {number} is not user:hash (see htpasswd, openssl passwd)"
        users += 1
    return "" if users else "is no file of passwords: it names no user"
