"""An identity provider: keys, tokens, and an HTTPS server on loopback that gives out the keys and counts."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.server
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deployer.api.auth.access import Access, open_access
from deployer.settings import Settings

ISSUER = "https://idp.example"
AUDIENCE = "kube-deployer"


class Issuer:
    """Signs tokens with an ES256 key."""

    def __init__(self, kid: str = "one") -> None:
        self.kid = kid
        self.key = ec.generate_private_key(ec.SECP256R1())

    @property
    def pem(self) -> bytes:
        """The public key."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def jwk(self) -> dict[str, Any]:
        """The same as a JWK."""
        numbers = self.key.public_key().public_numbers()
        x, y = (base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode() for n in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "alg": "ES256", "x": x, "y": y}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of a good token; what is changed to None is left out."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ann",
            "exp": int(time.time()) + 600,
            "namespaces": ["shop-ns"],
            "roles": ["deploy"],
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token with these claims."""
        return jwt.encode(
            self.claims(**changes), self.key, algorithm="ES256", headers={"kid": self.kid} | (headers or {})
        )


def bearer(token: str) -> dict[str, str]:
    """The header."""
    return {"Authorization": f"Bearer {token}"}


def part(document: Any) -> str:
    """A segment of a token that somebody makes by hand."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


Reply = Callable[[http.server.BaseHTTPRequestHandler], None]


class KeyServer:
    """Gives out a JWK Set over TLS, with a certificate of an authority of its own (`ca`), and counts.

    `base` is an issuer whose document says where the keys are; `asked` has every path.
    """

    def __init__(self, directory: Path, *issuers: Issuer) -> None:
        self.issuers = list(issuers)
        self.fetches = 0
        self.asked: list[str] = []
        self.document: dict[str, Any] = {}
        self.reply: Reply = self._keys
        self.ca = directory / "ca.pem"
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.fetches += 1
                outer.asked.append(self.path)
                with contextlib.suppress(OSError):
                    outer.reply(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._server.socket = server_context(directory).wrap_socket(self._server.socket, server_side=True)
        self.base = f"https://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.base}/keys"
        self.document = {"issuer": self.base, "jwks_uri": self.url}
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _keys(self, request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path == "/.well-known/openid-configuration":
            self.send(request, json.dumps(self.document).encode())
            return
        self.send(request, json.dumps({"keys": [issuer.jwk for issuer in self.issuers]}).encode())

    @staticmethod
    def send(request: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
        """An answer."""
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


def server_context(directory: Path) -> ssl.SSLContext:
    """For a server on 127.0.0.1, with a certificate of an authority of its own, which is in `directory/ca.pem`."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    made = _certificate("authority", authority, "authority", authority)
    (directory / "ca.pem").write_bytes(made.public_bytes(_PEM))
    certificate = directory / "server.pem"
    private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate.write_bytes(private + _certificate("server", key, "authority", authority).public_bytes(_PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


_PEM = serialization.Encoding.PEM


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, by: str, by_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    authority = by_key is key
    signer = x509.SubjectKeyIdentifier.from_public_key(by_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, by)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False)
    )
    if not authority:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(by_key, hashes.SHA256())


@contextlib.contextmanager
def access_by(issuer: Issuer, directory: Path) -> Iterator[Access]:
    """Who may do what, by tokens of that issuer."""
    file = directory / "key.pem"
    file.write_bytes(issuer.pem)
    made = open_access(jwt_settings(file), None)  # type: ignore[arg-type]
    assert made is not None
    try:
        yield made
    finally:
        made.close()


def jwt_settings(file: Path, **more: Any) -> Settings:
    """A service that takes the issuer's tokens; `file` has its public key."""
    return Settings(
        auth="jwt", jwt_algorithm="ES256", jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_key_file=str(file), **more
    )
