"""The public keys of an issuer: what may be one, and a PEM file that holds some."""

from __future__ import annotations

import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from deployer.core.errors import SettingsError

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

LEAST_RSA_BITS = 2048
"""RFC 7518, 3.3."""

_CURVES: dict[str, type[EllipticCurve]] = {"ES256": SECP256R1, "ES384": SECP384R1, "ES512": SECP521R1}
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_LOOK_AGAIN = 1.0  # seconds between two looks at the file


@dataclass(frozen=True, slots=True)
class Keys:
    """An issuer's keys at one moment. `generation` is another number whenever they are others.

    by_id     by algorithm and key id
    nameless  keys that may have signed whatever token, whether it names a key or not
    """

    generation: int
    by_id: dict[tuple[str, str], PublicKey]
    nameless: tuple[PublicKey, ...] = ()

    def candidates(self, algorithm: str, kid: str | None) -> Sequence[PublicKey]:
        """The keys by which a token with that key id may be signed. Without an id it must be the only one."""
        if self.nameless:
            return [key for key in self.nameless if not unfit(key, algorithm)]
        if kid is None:
            only = {id for _, id in self.by_id}
            kid = only.pop() if len(only) == 1 else None
        found = self.by_id.get((algorithm, kid)) if isinstance(kid, str) else None
        return () if found is None else (found,)


class KeySource(ABC):
    """Where the issuer's keys come from. Thread-safe."""

    @abstractmethod
    def current(self) -> Keys:
        """The keys as far as they are known; quick. Raises Unsure when there are none."""

    def newer(self, than: Keys) -> Keys:
        """Look for keys that `than` does not have, as far as that is allowed now. Raises Unsure."""
        return self.current()

    def problem(self) -> str:
        """Why there are no keys, as a sentence; empty when there are."""
        return ""

    def start(self) -> None:  # noqa: B027 - most have nothing to do
        """Prepare, without waiting for anybody."""

    def close(self) -> None:  # noqa: B027
        """Let go of everything; idempotent."""


def unfit(key: Any, algorithm: str) -> str:
    """Why signatures in that algorithm cannot be checked with the key; empty when they can."""
    if algorithm.startswith("ES"):
        curve = _CURVES[algorithm]
        good = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, curve)
        return "" if good else f"it is no key on the curve {curve.name}, as {algorithm} needs"
    if algorithm == "EdDSA":
        return "" if isinstance(key, Ed25519PublicKey | Ed448PublicKey) else "it is no Ed25519 or Ed448 key"
    if not isinstance(key, RSAPublicKey):
        return f"it is no RSA key, as {algorithm} needs"
    return "" if key.key_size >= LEAST_RSA_BITS else f"it has less than {LEAST_RSA_BITS} bits"


class PemFile(KeySource):
    """Public keys or certificates in a file, read again when it changes; while it cannot be read the last ones stay."""

    def __init__(self, path: Path, algorithms: Sequence[str]) -> None:
        """Raises SettingsError when the file is of no use now."""
        self._path = path
        self._algorithms = algorithms
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self._seen = self._stat()
        self._keys = Keys(0, {}, self._read())

    def current(self) -> Keys:
        if time.monotonic() - self._looked > _LOOK_AGAIN:
            self._look()
        return self._keys

    def newer(self, than: Keys) -> Keys:
        self._look()
        return self._keys

    def _look(self) -> None:
        with self._lock:
            self._looked = time.monotonic()
            try:
                seen = self._stat()
                if seen == self._seen:
                    return
                keys = self._read()
            except SettingsError:
                return  # being written, perhaps
            self._seen = seen
            if keys != self._keys.nameless:
                self._keys = Keys(self._keys.generation + 1, {}, keys)

    def _stat(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError as error:
            raise SettingsError(f"the key file {self._path} cannot be read: {error.strerror or error}") from None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def _read(self) -> tuple[PublicKey, ...]:
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise SettingsError(f"the key file {self._path} cannot be read: {error.strerror or error}") from None
        if b"PRIVATE KEY-----" in content:
            raise SettingsError(
                f"the key file {self._path} holds a private key, which belongs to the issuer alone: put the public one "
                "there"
            )
        keys: list[PublicKey] = []
        for block in _PEM.finditer(content):
            try:
                key: Any = _load(block.group(1), block.group(0))
            except (ValueError, UnsupportedAlgorithm) as error:
                raise SettingsError(f"the key file {self._path} holds something else than public keys") from error
            wrong = [unfit(key, algorithm) for algorithm in self._algorithms]
            if all(wrong):
                names = " or ".join(self._algorithms)
                raise SettingsError(f"the key file {self._path} does not go with {names}: {wrong[0]}")
            keys.append(key)
        if not keys:
            raise SettingsError(f"the key file {self._path} holds no public key or certificate in PEM form")
        return tuple(keys)


def _load(label: bytes, block: bytes) -> Any:
    if label == b"CERTIFICATE":
        return x509.load_pem_x509_certificate(block).public_key()
    return load_pem_public_key(block)
