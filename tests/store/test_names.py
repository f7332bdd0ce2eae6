"""URLs are understood or refused before anything is touched, and shown without their secrets."""

from __future__ import annotations

import sys

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.store import open_objects
from tune_tasks.store.names import Credentials, shown_url, split_credentials, split_url

SECRET = "wJalr/XUtn+FEMI"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("./studies/digits", ("file", "./studies/digits")),
        ("../studies", ("file", "../studies")),
        ("/data/a b", ("file", "/data/a b")),
        ("file:///data/x", ("file", "/data/x")),
        ("local:///data/x", ("file", "/data/x")),
        ("memory://x", ("memory", "x")),
        ("S3://bucket/x", ("s3", "bucket/x")),
        ("abfs://container@account.dfs.core.windows.net/x", ("abfs", "container@account.dfs.core.windows.net/x")),
    ],
)
def test_a_url_has_a_scheme_and_a_place(url: str, expected: tuple[str, str]):
    assert split_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a\0b",
        "s3:bucket/x",
        "s3:/bucket",
        "s3://",
        "s3:///",
        "s3://bucket/../other",
        "s3://bucket/%2E%2e/other",
        "s3://bucket/a\nb",
        "s3://bucket/a\\b",
        "s3://bucket/a?versionId=3",
        "s3://bucket/a#b",
        "simplecache::s3://bucket",
        "zip://a.zip::s3://bucket",
        "file://",
    ],
)
def test_what_cannot_be_the_url_of_a_store_is_refused(url: str):
    with pytest.raises(ConfigError, match="store"):
        open_objects(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"s3://AKIA:{SECRET}@bucket/x/", "s3://bucket/x"),
        ("s3://AKIA:wJalr%2FXUtn%2BFEMI@bucket/x", "s3://bucket/x"),
        (f"S3://AKIA:{SECRET}@bucket?sig={SECRET}", "s3://bucket"),
        (f"abfs://container@account/x?sv=1&sig={SECRET}", "abfs://container@account/x"),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
        ("./studies", "./studies"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str):
    assert shown_url(url) == shown


def test_credentials_are_decoded():
    assert split_credentials("AKIA:a%2Fb%40c@bucket/x") == ("bucket/x", Credentials("AKIA", "a/b@c"))


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIA:{SECRET}@bucket/../x",
        f"s3://AKIA:{SECRET}@",
        f"s4://AKIA:{SECRET}@bucket",
        f"gs://AKIA:{SECRET}@bucket",
        f"s3://AKIA:{SECRET}@bucket?{SECRET}",
        f"s3://AKIA:{SECRET}@bucket::x",
    ],
)
def test_no_message_about_a_url_shows_its_secret(url: str):
    with pytest.raises(ConfigError) as caught:
        open_objects(url)
    assert SECRET not in str(caught.value)
    assert "AKIA" not in str(caught.value)


def test_an_unknown_scheme_names_the_nearest():
    with pytest.raises(ConfigError, match=r"allowed are a local path and the schemes .*Did you mean 'gs://bucket/x'\?"):
        open_objects("gss://bucket/x")


@pytest.mark.parametrize(
    ("url", "extra"),
    [("s3://bucket", "s3"), ("gs://bucket", "gcs"), ("az://box@account.blob.core.windows.net", "azure")],
)
def test_a_missing_package_names_the_extra_that_installs_it(monkeypatch: pytest.MonkeyPatch, url: str, extra: str):
    def missing(scheme: str) -> None:
        raise ImportError("Please install it")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    monkeypatch.setitem(sys.modules, "gcsfs.core", None)
    with pytest.raises(ConfigError, match=rf"store: {url} needs .* pip install 'tune-tasks\[{extra}\]'"):
        open_objects(url)


def test_nothing_is_made_by_opening(tmp_path):
    open_objects(str(tmp_path / "new")).read("log/1")
    open_objects(str(tmp_path / "new")).list("")
    assert list(tmp_path.iterdir()) == []
