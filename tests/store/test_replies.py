"""What a reply means follows from its status, through whatever exceptions three libraries wrap it in."""

from __future__ import annotations

import errno

import pytest

from tune_tasks.store.replies import Kind, reply


class ClientError(Exception):
    """As botocore raises it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class ResourceExistsError(Exception):
    """As azure raises it; its response is no mapping."""

    status_code = 409
    response = object()

    def __init__(self, code: str) -> None:
        self.error_code = code


class HttpError(Exception):
    """As gcsfs raises it."""

    def __init__(self, code: int | str) -> None:
        self.code = code


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def during(error: Exception, context: Exception) -> Exception:
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (caused(FileExistsError(), ClientError(412, "PreconditionFailed")), "exists"),
        (caused(OSError(errno.EINVAL, None), ClientError(412, "PreconditionFailed")), "exists"),
        (caused(OSError(errno.EIO, "Conflict"), ClientError(409, "ConditionalRequestConflict")), "unclear"),
        (during(FileExistsError("log/1"), ResourceExistsError("BlobAlreadyExists")), "exists"),
        (during(FileExistsError("log/1"), ResourceExistsError("LeaseAlreadyPresent")), "unclear"),
        (caused(FileExistsError("log/1"), HttpError(412)), "exists"),
        (FileExistsError("log/1"), "exists"),
        (caused(FileNotFoundError(), ClientError(404, "NoSuchKey")), "absent"),
        (caused(FileNotFoundError(), ClientError(404, "NoSuchBucket")), "refused"),
        (FileNotFoundError("log/1"), "absent"),
        (caused(PermissionError(), ClientError(403, "AccessDenied")), "refused"),
        (HttpError("403"), "refused"),
        (caused(OSError(errno.EINVAL, ""), ClientError(400, "AuthorizationHeaderMalformed")), "refused"),
        (type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"), "refused"),
        (caused(OSError(errno.EINVAL, ""), ClientError(416, "InvalidRange")), "ended"),
        (caused(OSError(errno.EBUSY, ""), ClientError(503, "SlowDown")), "unclear"),
        (caused(TimeoutError(), ClientError(400, "RequestTimeout")), "unclear"),
        (TimeoutError(), "unclear"),
        (OSError(errno.ECONNRESET, "reset"), "unclear"),
    ],
)
def test_a_reply_means(error: Exception, kind: Kind):
    assert reply(error).kind == kind
