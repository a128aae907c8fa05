"""TLS by a certificate and its key."""

from __future__ import annotations

import ssl
from pathlib import Path

from eventstore.errors import SettingsError


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """What a server speaks TLS 1.2 and later with.

    Args:
        certificate: a PEM file: the server's, and those between it and the authority.
        key: a PEM file with its private key, without a password; in the same file if left out.

    Raises:
        SettingsError: they cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Whoever runs this may not be there to be asked for a password.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        named = f"--tls-cert {certificate}" + (f" --tls-key {key}" if key is not None else "")
        raise SettingsError(
            f"{named}: {reason}: give PEM files that can be read, a certificate and the key that belongs to it, "
            "without a password"
        ) from None
    return context
