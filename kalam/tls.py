"""The server's certificate, and the authority of its clients', as its listeners use them: files that are read anew.

A connection keeps what it began with. A new one gets the newest, because each handshake asks for it: a context that was
handed to a listener cannot be told to forget an authority that it has learned.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from kalam.errors import InvalidOption
from kalam.settings import Settings

log = structlog.get_logger(__name__)


class Certificates:
    """The files ``tls_cert``, ``tls_key`` and ``tls_client_ca``. Raises InvalidOption where they do not fit.

    ``context`` is what a listener of this process takes. With ``client_ca`` a client has to show a certificate that
    this authority has signed.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self.cert, self.key, self.client_ca = cert, key, client_ca
        self._listeners: list[Callable[[], None]] = []
        self._newest = self.context = self._read()
        self.context.sni_callback = self._use_newest

    @classmethod
    def of(cls, settings: Settings) -> Certificates | None:
        """Those that are set; None where none are."""
        cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
        if cert is not None and key is not None:
            return cls(cert, key, client_ca)
        given = {"tls_cert": cert, "tls_key": key, "tls_client_ca": client_ca}
        named = [name for name, value in given.items() if value is not None]
        if named:
            missing = " and ".join(name for name in ("tls_cert", "tls_key") if given[name] is None)
            raise InvalidOption(f"{' and '.join(named)} without {missing}: TLS needs a certificate and its key")
        return None

    def on_reload(self, listener: Callable[[], None]) -> None:
        """Have somebody else told when the files are to be read anew."""
        self._listeners.append(listener)

    def reload(self) -> None:
        """Read the files anew. What does not fit is logged, and what was there before goes on."""
        try:
            self._newest = self._read()
        except InvalidOption as exc:
            log.error("the certificate is not read anew, the former one goes on", error=exc.detail)
            return
        log.info("the certificate is read anew", cert=self.cert.name)
        for listener in self._listeners:
            listener()

    def _use_newest(self, connection: ssl.SSLSocket | ssl.SSLObject, _: str | None, context: ssl.SSLContext) -> None:
        """Begin a handshake; called for a client that names no server too."""
        if context is not self._newest:
            connection.context = self._newest

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        for name, file in (("tls_cert", self.cert), ("tls_key", self.key), ("tls_client_ca", self.client_ca)):
            if file is not None:
                _check_readable(name, file)
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (ssl.SSLError, OSError) as exc:
            raise InvalidOption(self._misfit(exc)) from exc
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self.client_ca)
            except (ssl.SSLError, OSError) as exc:
                raise InvalidOption(f"tls_client_ca {self.client_ca} holds no certificate in PEM") from exc
        return context

    def _misfit(self, error: Exception) -> str:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            return f"tls_key {self.key} is not the key of the certificate tls_cert {self.cert}"
        if "ENCRYPTED" in self.key.read_text("latin-1"):
            return f"tls_key {self.key} is encrypted: nobody is there to ask for its password"
        if "BEGIN CERTIFICATE" not in self.cert.read_text("latin-1"):
            return f"tls_cert {self.cert} holds no certificate in PEM"
        return f"tls_cert {self.cert} and tls_key {self.key} are no certificate in PEM and its key: {_reason(error)}"


def _no_password() -> str:
    return ""  # else OpenSSL asks at the terminal


def _check_readable(name: str, file: Path) -> None:
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as exc:
        raise InvalidOption(f"{name} {file} cannot be read: {exc.strerror}") from exc


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
