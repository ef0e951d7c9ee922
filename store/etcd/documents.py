"""Records as values in etcd: a line about the record, then its document, compressed, here or in pieces elsewhere.

etcd takes 1.5 MiB in one request (`--max-request-bytes`; base64 on the way to the gateway does not count). Documents
that are too large for that together go into pieces, which are written before the transaction.
"""

from __future__ import annotations

import dataclasses
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from deployer.core.errors import StoreUnavailable
from deployer.core.model import json_codec
from deployer.core.model.records import Record
from deployer.core.ports.store import R
from deployer.store.etcd.client.messages import KeyValue
from deployer.store.etcd.layout import Meta

INLINE = 512 * 1024
"""Bytes of documents that stay in their transaction."""

PIECE = 512 * 1024
"""Bytes of one piece of a document."""

_ZIP_FROM = 512  # bytes below which compressing saves nothing worth it


@dataclass(frozen=True, slots=True)
class Packed:
    """A document on its way into etcd. blob: the name of its pieces; empty when it goes with its record. size: its
    bytes as JSON."""

    data: bytes
    size: int
    zipped: bool
    blob: str = ""

    @property
    def pieces(self) -> list[bytes]:
        """What goes into keys of its own."""
        return [self.data[at : at + PIECE] for at in range(0, len(self.data), PIECE)] if self.blob else []


def pack(record: Record) -> Packed:
    """The document of a record, small. Raises TypeError for what JSON cannot hold."""
    data = json_codec.dumps(record.to_document()).encode("ascii")
    if len(data) < _ZIP_FROM:
        return Packed(data, len(data), zipped=False)
    return Packed(zlib.compress(data, 1), len(data), zipped=True)


def spread(documents: Sequence[Packed]) -> list[Packed]:
    """The same, of which the largest go into pieces until the others fit into one transaction."""
    out = list(documents)
    total = sum(len(document.data) for document in out)
    for place in sorted(range(len(out)), key=lambda place: -len(out[place].data)):
        if total <= INLINE:
            break
        total -= len(out[place].data)
        out[place] = dataclasses.replace(out[place], blob=secrets.token_hex(8))
    return out


def meta_of(record: Record, sequence: int, packed: Packed) -> Meta:
    """What is said of a record beside its document."""
    return Meta(
        record.namespace,
        record.app,
        record.tag,
        sequence,
        packed.zipped,
        packed.blob,
        len(packed.pieces),
        packed.size,
    )


def value_of(meta: Meta, packed: Packed) -> bytes:
    """A record's value."""
    return msgspec.json.encode(meta) + b"\n" + (b"" if packed.blob else packed.data)


def read_meta(found: KeyValue) -> tuple[Meta, bytes]:
    """What is said of a record, and its document unless that is in pieces. Raises StoreUnavailable."""
    line, _, data = found.value.partition(b"\n")
    try:
        return msgspec.json.decode(line, type=Meta), data
    except msgspec.MsgspecError as error:
        name = found.key.decode("utf-8", "backslashreplace")
        raise StoreUnavailable(
            f"the key {name} in etcd is no record of the Deployer ({error}): restore a snapshot"
        ) from error


def unpacked(meta: Meta, data: bytes) -> bytes:
    """The JSON of a whole document. Raises StoreUnavailable."""
    try:
        return zlib.decompress(data) if meta.zipped else data
    except zlib.error as error:
        raise StoreUnavailable(f"a document in etcd is damaged ({error}): restore a snapshot of etcd") from error


def read_record(kind: type[R], revision: int, meta: Meta, text: bytes) -> R:
    """The record of a document. Raises StoreUnavailable when what is stored is none."""
    try:
        return kind.from_document(json_codec.loads(text.decode("ascii")), revision=revision, sequence=meta.sequence)
    except (ValueError, TypeError, LookupError, AttributeError, msgspec.MsgspecError) as error:
        said = f"revision {revision} in etcd, of a {kind.KIND}, cannot be read ({type(error).__name__})"
        raise StoreUnavailable(f"{said}: restore a snapshot of etcd") from error
