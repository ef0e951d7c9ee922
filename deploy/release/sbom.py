"""The bill of materials: the packages of the lock, in CycloneDX 1.6 as JSON, checked against its schema.

Source: https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from release.licences import Package
from release.version import Refused

NAME, LICENCE = "kube-deployer", "Apache-2.0"


def make(packages: list[Package], version: str, direct: set[str], commit: str, epoch: int) -> str:
    """The document, with the same bytes for the same lock and commit.

    `direct` has the names of what the Deployer itself needs; `epoch` is the time of the commit.
    """
    licences = LicenseFactory()
    ours = Component(
        name=NAME,
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=f"{NAME}@{version}",
        purl=PackageURL("pypi", name=NAME, version=version),
        licenses=[licences.make_from_string(LICENCE)],
    )
    parts = {
        one.name: Component(
            name=one.name,
            version=one.version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{one.name}@{one.version}",
            purl=PackageURL("pypi", name=one.name, version=one.version),
            licenses=[licences.make_from_string(one.licence)],
            external_references=[_files(one)],
        )
        for one in packages
    }
    bom = Bom(components=parts.values(), serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{NAME}@{version}#{commit}"))
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.metadata.component = ours
    bom.register_dependency(ours, [parts[name] for name in sorted(direct & parts.keys())])
    for one in packages:
        bom.register_dependency(parts[one.name], [parts[name] for name in one.requires])
    text = json.dumps(json.loads(JsonV1Dot6(bom).output_as_string()), indent=2, sort_keys=True) + "\n"
    check(text)
    return text


def check(text: str) -> None:
    """Raise `Refused` unless the text is a CycloneDX 1.6 document."""
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise Refused(f"The bill of materials does not keep to the schema of CycloneDX 1.6: {wrong}")


def _files(package: Package) -> ExternalReference:
    """Where the package comes from, with the hashes of its files that the lock allows."""
    return ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(f"https://pypi.org/project/{package.name}/{package.version}/"),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one) for one in package.hashes],
    )
