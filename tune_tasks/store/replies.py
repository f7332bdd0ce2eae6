"""What a bucket's reply means, by its status and code.

Never by the class of the exception alone: s3fs reports the same 412 as FileExistsError or as an invalid argument,
depending on a field that only some servers send, and a conflict that is worth another try as an I/O error. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["absent", "exists", "ended", "refused", "unclear"]

_TAKEN = {"BlobAlreadyExists", "PreconditionFailed", "ConditionNotMet"}
_REFUSED = {
    "AuthorizationHeaderMalformed",
    "ContainerNotFound",
    "ExpiredToken",
    "InvalidBucketName",
    "InvalidToken",
    "NoSuchBucket",
    "PermanentRedirect",
}
# These come from the client library before any request, so that there is no status to decide on.
_UNSENT = {"ClientAuthenticationError", "DefaultCredentialsError", "NoCredentialsError", "ParamValidationError"}


class Reply(NamedTuple):
    """`exists`: the key is taken. `ended`: a range behind the end. `refused`: only a person can mend it."""

    kind: Kind
    status: int | None
    code: str


def reply(error: BaseException) -> Reply:
    """Reads status and code out of an exception of s3fs, gcsfs or adlfs, or of what caused it."""
    chain = list(_chain(error))
    known = [found for link in chain if (found := _status(link))[0] is not None]
    status, code = known[-1] if known else (None, "")
    return Reply(_kind(status, code) if known else _unsent(chain), status, code)


def _kind(status: int | None, code: str) -> Kind:
    if code in _REFUSED or status in {301, 401, 403}:
        return "refused"
    if code in _TAKEN or status == HTTPStatus.PRECONDITION_FAILED:
        return "exists"
    if status == HTTPStatus.NOT_FOUND:
        return "absent"
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return "ended"
    return "unclear"  # among them 409 ConditionalRequestConflict: nothing landed, and S3 says try again


def _unsent(chain: list[BaseException]) -> Kind:
    """The meaning where no link of the chain has a status: gcsfs drops it for a few replies that it recognises."""
    for link in chain:
        if isinstance(link, FileNotFoundError):
            return "absent"
        if isinstance(link, FileExistsError):
            return "exists"
        if isinstance(link, PermissionError) or type(link).__name__ in _UNSENT:
            return "refused"
    return "unclear"


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _status(error: BaseException) -> tuple[int | None, str]:
    answer: Any = getattr(error, "response", None)
    if isinstance(answer, dict):  # botocore
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode"), str(answer.get("Error", {}).get("Code", ""))
    for name in ("status_code", "status", "code"):  # azure, aiohttp, gcsfs
        number = getattr(error, name, None)
        if isinstance(number, int | str) and str(number).isdigit():
            code = getattr(error, "error_code", None)
            return int(number), str(getattr(code, "value", code) or "")
    return None, ""
