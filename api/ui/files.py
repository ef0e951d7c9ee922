"""`/ui/`: the files of the page, as `make web` has built them. They are the same for everybody and hold no data."""

from __future__ import annotations

import functools
import gzip
import hashlib
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

import falcon

from deployer.api import http
from deployer.core.errors import NotFound
from deployer.core.model.records import Document

INDEX = "index.html"

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}
_FOREVER = "public, max-age=31536000, immutable"
"""For files with a hash of their content in their names."""


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent: its type, its bytes, the same compressed, and an entity tag for each."""

    content_type: str
    plain: bytes
    packed: bytes
    tag: str

    @classmethod
    def of(cls, name: str, content: bytes) -> File:
        """The file of that name. Its type comes from the name alone."""
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        return cls(_TYPES[name.rsplit(".", 1)[1]], content, gzip.compress(content, 9, mtime=0), digest)


@functools.cache
def files() -> dict[str, File]:
    """All of them by name, from the package."""
    found = resources.files(__package__).joinpath("static").iterdir()
    return {file.name: File.of(file.name, file.read_bytes()) for file in found}


def policy(issuers: Iterable[str]) -> str:
    """The Content-Security-Policy: nothing but the page's own files runs, and it talks to nobody but this service and,
    to log in, the identity providers at the addresses `issuers`."""
    talks = sorted({f"{url.scheme}://{url.netloc}" for url in map(urllib.parse.urlsplit, issuers) if url.netloc})
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
        f"{''.join(f' {address}' for address in talks)}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


class Index(http.Resource):
    """The page itself."""

    def __init__(self, authentication: Document) -> None:
        """`authentication` is what `/` says of it: its issuers are talked to."""
        self._policy = policy(issuer["issuer"] for issuer in authentication.get("issuers", ()))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The page. Its addresses are relative, so without the slash at the end the browser is told to add it."""
        if not req.env["PATH_INFO"].endswith("/"):
            resp.status = 308
            resp.set_header("Location", "ui/")
            return
        resp.set_header("Content-Security-Policy", self._policy)
        resp.set_header("Referrer-Policy", "no-referrer")
        _send(req, resp, files()[INDEX], "no-cache")


class Asset(http.Resource):
    """A file that the page loads."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, file: str) -> None:
        """The file, which browsers keep: another build has another name."""
        found = files().get(file)
        if found is None or file == INDEX:
            raise NotFound(f"the page has no file {file}; reload it, since the service has been updated")
        _send(req, resp, found, _FOREVER)


def _send(req: falcon.Request, resp: falcon.Response, file: File, keep: str) -> None:
    packed = "gzip" in (req.get_header("Accept-Encoding") or "")
    resp.content_type = file.content_type
    resp.set_header("Cache-Control", keep)
    resp.set_header("Vary", "Accept-Encoding")
    http.set_tag(resp, f"{file.tag}.1" if packed else file.tag)
    if packed:
        resp.set_header("Content-Encoding", "gzip")
    resp.data = file.packed if packed else file.plain
