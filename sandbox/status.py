"""Errors as the API server answers them: an exception that carries a Status object."""

from typing import Any

from deployer.sandbox.kinds import Kind, Object


class ApiError(Exception):
    """An error answer: HTTP code, machine-readable reason, one sentence, details."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details or {}
        self.headers: dict[str, str] = {}

    def status(self) -> Object:
        """The Status object of the answer's body."""
        body: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        body |= {"message": self.message, "reason": self.reason}
        if self.details:
            body["details"] = self.details
        return body | {"code": self.code}


def details(kind: Kind, name: str, **more: Any) -> Object:
    found = {"name": name, "group": kind.group, "kind": kind.plural, **more}
    return {key: value for key, value in found.items() if value}


def not_found(kind: Kind, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{kind.resource} "{name}" not found', details(kind, name))


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(kind: Kind, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', details(kind, name))


def conflict(kind: Kind, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return ApiError(409, "Conflict", message, details(kind, name))


def stale(kind: Kind, name: str) -> ApiError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(kind, name, why)


def no_version(kind: Kind, name: str) -> ApiError:
    """For an unconditional replace of a kind that allows none."""
    field, message = "metadata.resourceVersion", "Invalid value: 0: must be specified for an update"
    causes = [{"reason": "FieldValueInvalid", "message": message, "field": field}]
    told = f'{kind.resource} "{name}" is invalid: {field}: {message}'
    return ApiError(422, "Invalid", told, details(kind, name, causes=causes))


def forbidden(kind: Kind, name: str, why: str, **more: Any) -> ApiError:
    message = f'{kind.resource} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, details(kind, name, **more))


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def not_supported(what: str) -> ApiError:
    """What a real cluster could do and the sandbox cannot."""
    return ApiError(501, "NotImplemented", f"the sandbox does not support {what}")
