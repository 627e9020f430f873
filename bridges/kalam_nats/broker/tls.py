"""TLS at the embedded broker: what its configuration says of it, and Kalam's own connections through it.

Kalam believes exactly the certificate that the broker was given, by whichever name: it is its own. With an authority
for clients Kalam shows that same certificate, which the broker is told to believe beside the authority.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final

from kalam.tls import Certificates

CLIENT_CA_FILE: Final = "client-ca.pem"
HANDSHAKE_S: Final = 5
_END: Final = "-----END CERTIFICATE-----"


def listener_tls(certificates: Certificates, folder: Path) -> dict[str, Any]:
    """The block ``tls`` of a listener; its authority for clients lies in ``folder`` (see ``write_client_ca``)."""
    block: dict[str, Any] = {
        "cert_file": str(certificates.cert.absolute()),
        "key_file": str(certificates.key.absolute()),
        "timeout": HANDSHAKE_S,
    }
    if certificates.client_ca is not None:
        block |= {"ca_file": str(folder / CLIENT_CA_FILE), "verify": True}
    return block


def write_client_ca(certificates: Certificates, folder: Path) -> None:
    """Write what may have signed a client's certificate: the authority, and for Kalam itself the server's own."""
    if certificates.client_ca is not None:
        believed = f"{certificates.client_ca.read_text('ascii')}\n{_own(certificates)}\n"
        (folder / CLIENT_CA_FILE).write_text(believed, "ascii")


def own_context(certificates: Certificates) -> ssl.SSLContext:
    """How Kalam connects to its own broker; follows the certificates when they are read anew."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is believed, whoever signed it

    def believe() -> None:
        context.load_verify_locations(cadata=_own(certificates))
        if certificates.client_ca is not None:
            context.load_cert_chain(certificates.cert, certificates.key)

    believe()
    certificates.on_reload(believe)
    return context


def _own(certificates: Certificates) -> str:
    """The server's certificate without those that it was signed by."""
    text = certificates.cert.read_text("ascii", "replace")
    return text[text.index("-----BEGIN CERTIFICATE-----") : text.index(_END) + len(_END)]
