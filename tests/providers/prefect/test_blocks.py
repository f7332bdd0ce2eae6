"""The blocks of the store and of the cluster on a real server: what they say, to whom, and what is never shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow, get_run_logger
from prefect.blocks.core import Block
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.types import SecretDict
from pydantic import Field, SecretStr, ValidationError

import tune_tasks as tt
from tests.execution.test_jobs import dashboard
from tests.prefect_server import PrefectServer, shared
from tests.servers import ACCESS, SECRET
from tests.servers.moto import moto
from tests.studies import write_study
from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks_prefect.blocks import RayCluster, StudyStore, dashboard_of, opened, variables

pytestmark = pytest.mark.prefect

KEY = "hunter2-hunter2"
GOOGLE = {"type": "service_account", "private_key": KEY, "client_email": "me@example.org"}


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    running = shared()
    with temporary_settings({PREFECT_API_URL: running.api, PREFECT_HOME: running.home}):
        yield running


@pytest.fixture
def saved(server: PrefectServer) -> Callable[[Block], str]:
    """Saves a block under a name of its own, and gives that."""

    def save(block: Block) -> str:
        name = f"b{uuid4().hex[:8]}"
        block.save(name)
        return name

    return save


class AwsCredentials(Block):
    """As prefect-aws has it, which is not installed here."""

    _block_type_slug = "aws-credentials"
    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    profile_name: str | None = None
    region_name: str | None = None
    aws_client_parameters: dict[str, Any] = Field(default_factory=dict)


class S3Bucket(Block):
    """As prefect-aws has it."""

    _block_type_slug = "s3-bucket"
    bucket_name: str
    bucket_folder: str = ""
    credentials: AwsCredentials


class GcpCredentials(Block):
    """As prefect-gcp has it."""

    _block_type_slug = "gcp-credentials"
    service_account_info: SecretDict | None = None


class AzureBlobStorageCredentials(Block):
    """As prefect-azure has it."""

    _block_type_slug = "azure-blob-storage-credentials"
    connection_string: SecretStr | None = None
    account_url: str | None = None


AMAZON = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": KEY, "AWS_DEFAULT_REGION": "eu-west-1"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"url": "/shared/studies"}, {}),
        ({"aws_access_key_id": "AKIA", "aws_secret_access_key": KEY, "aws_region": "eu-west-1"}, AMAZON),
        (
            {"aws_session_token": KEY, "aws_endpoint_url": "http://minio:9000"},
            {"AWS_SESSION_TOKEN": KEY, "AWS_ENDPOINT_URL": "http://minio:9000"},
        ),
        ({"google_key_path": "/keys/one.json"}, {"GOOGLE_APPLICATION_CREDENTIALS": "/keys/one.json"}),
        ({"google_key": GOOGLE}, {"FSSPEC_GCS": json.dumps({"token": GOOGLE})}),
        (
            {"azure_account_name": "account", "azure_account_key": KEY},
            {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": KEY},
        ),
        ({"azure_sas_token": KEY}, {"AZURE_STORAGE_SAS_TOKEN": KEY}),
        ({"azure_connection_string": f"A={KEY}"}, {"AZURE_STORAGE_CONNECTION_STRING": f"A={KEY}"}),
        ({"postgres_user": "me", "postgres_password": KEY}, {"PGUSER": "me", "PGPASSWORD": KEY}),
    ],
)
def test_a_store_is_what_its_client_reads_and_no_secret_is_shown(
    saved: Callable[[Block], str], server: PrefectServer, fields: dict[str, Any], expected: dict[str, str]
) -> None:
    block = StudyStore(**fields)
    name = saved(block)
    assert variables(name) == expected
    assert variables(f"study-store/{name}") == expected
    [row] = [row for row in server.rows("block_documents") if row["name"] == name]
    for shown in (json.dumps(row), repr(block), str(block), block.model_dump_json()):
        assert KEY not in shown


@pytest.mark.parametrize(
    ("make", "place", "expected"),
    [
        (
            lambda: AwsCredentials(aws_access_key_id="AKIA", aws_secret_access_key=KEY, region_name="eu-west-1"),
            None,
            AMAZON,
        ),
        (lambda: GcpCredentials(service_account_info=GOOGLE), None, {"FSSPEC_GCS": json.dumps({"token": GOOGLE})}),
        (
            lambda: AzureBlobStorageCredentials(connection_string=f"A={KEY}"),
            None,
            {"AZURE_STORAGE_CONNECTION_STRING": f"A={KEY}"},
        ),
        (
            lambda: AzureBlobStorageCredentials(account_url="https://account.blob.core.windows.net"),
            None,
            {"AZURE_STORAGE_ACCOUNT_NAME": "account"},
        ),
    ],
)
def test_a_block_of_another_collection_is_understood_by_itself_and_from_a_study_store(
    saved: Callable[[Block], str], make: Callable[[], Block], place: str | None, expected: dict[str, str]
) -> None:
    other = make()
    named = f"{other.get_block_type_slug()}/{saved(other)}"
    assert variables(named) == expected
    assert variables(saved(StudyStore(url="s3://bucket/here", credentials=named))) == expected


def test_a_bucket_says_where_as_well_and_its_credentials_are_those_of_its_own_block(
    saved: Callable[[Block], str],
) -> None:
    credentials = AwsCredentials(
        aws_access_key_id="AKIA",
        aws_secret_access_key=KEY,
        region_name="eu-west-1",
        aws_client_parameters={"endpoint_url": "http://minio:9000"},
    )
    saved(credentials)
    name = saved(S3Bucket(bucket_name="bucket", bucket_folder="studies/", credentials=credentials))
    assert variables(f"s3-bucket/{name}") == {**AMAZON, "AWS_ENDPOINT_URL": "http://minio:9000"}
    with opened(f"s3-bucket/{name}") as place:
        assert place == "s3://bucket/studies"


def test_prefect_s_own_file_systems_say_where_and_with_what(saved: Callable[[Block], str], tmp_path: Path) -> None:
    from prefect.filesystems import LocalFileSystem, RemoteFileSystem

    settings = {"key": "AKIA", "secret": KEY, "client_kwargs": {"region_name": "eu-west-1"}}
    remote = saved(RemoteFileSystem(basepath="s3://bucket/studies", settings=settings))
    local = saved(LocalFileSystem(basepath=str(tmp_path)))
    for name, where, expected in (
        (f"remote-file-system/{remote}", "s3://bucket/studies", AMAZON),
        (f"local-file-system/{local}", str(tmp_path), {}),
    ):
        with opened(name) as place:
            assert place == where
        assert variables(name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "none-such",
            r"has no block 'none-such' of type 'study-store'; .*prefect block create study-store.*StudyStore\(",
        ),
        ("aws-credentials/none-such", r"no block 'none-such' of type 'aws-credentials'; .*create aws-credentials"),
        ("webhook/one", r"a block of type 'webhook' is not allowed; allowed are study-store, local-file-system, .*aws"),
    ],
)
def test_a_block_that_is_not_there_or_no_store_says_how_to_make_one(
    server: PrefectServer, name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        variables(name)


def test_what_cannot_be_used_is_refused_in_words_without_a_secret(saved: Callable[[Block], str]) -> None:
    profile = saved(AwsCredentials(profile_name="mine"))
    with pytest.raises(ConfigError, match="the profile 'mine', which other machines do not have"):
        variables(f"aws-credentials/{profile}")
    with pytest.raises(ConfigError, match="credentials 'prod' is not allowed; give a block as type/name"):
        variables(saved(StudyStore(credentials="prod")))
    with pytest.raises(ValidationError, match="aws_secret is not allowed; allowed are url, credentials, aws_access"):
        StudyStore(aws_secret=KEY)


def test_a_server_that_is_away_is_worth_another_try() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), pytest.raises(Unavailable, match="cannot be"):
        variables("prod")


def test_two_tasks_of_two_stores_run_at_once_in_one_process_whose_environment_stays(
    saved: Callable[[Block], str], tmp_path: Path
) -> None:
    before = dict(os.environ)

    def tuned(number: int) -> tuple[str, bool]:
        with moto(tmp_path) as s3:
            keys = {"aws_access_key_id": ACCESS, "aws_secret_access_key": SECRET}
            name = saved(StudyStore(url=s3.place(), **keys, aws_endpoint_url=s3.url, aws_region="us-east-1"))
            with opened(name) as place:
                spec = write_study(tmp_path / str(number), store=place, name=f"study-{number}", budget={"trials": 2})
                study = tt.tune(spec)
            return study.url, study.state.done  # only one of the two servers has it

    with ThreadPoolExecutor(2) as pool:  # with a copy of the context each, as Prefect runs tasks
        both = [one.result() for one in [pool.submit(copy_context().run, tuned, number) for number in range(2)]]
    assert [done for _, done in both] == [True, True]
    assert dict(os.environ) == before


def test_no_secret_is_in_what_a_flow_with_a_block_leaves_behind(
    saved: Callable[[Block], str], server: PrefectServer
) -> None:
    name = saved(StudyStore(aws_access_key_id="AKIA", aws_secret_access_key=KEY, google_key=GOOGLE))

    @flow(persist_result=True, result_serializer="json")
    def named(store: str) -> list[str]:
        with opened(store):
            get_run_logger().info("with %s", StudyStore.load(store))
        return sorted(variables(store))

    assert named(name) == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "FSSPEC_GCS"]
    server.wait_for(
        lambda: [
            row for row in server.rows("logs", sort="TIMESTAMP_DESC", limit=200) if "with StudyStore" in row["message"]
        ]
    )
    kept = b"".join(path.read_bytes() for path in server.home.rglob("*") if path.is_file())
    assert name.encode() in kept
    assert KEY.encode() not in kept


def test_a_cluster_is_reached_with_its_token_and_certificate_which_are_not_shown(saved: Callable[[Block], str]) -> None:
    block = RayCluster(
        address="https://ray.example/", token=KEY, headers={"X-Team": "vision"}, certificates="/etc/ca.pem"
    )
    name = saved(block)
    found = dashboard_of(name, None)
    assert (found.address, found.verify) == ("https://ray.example", "/etc/ca.pem")
    assert found.headers == {"Authorization": f"Bearer {KEY}", "X-Team": "vision"}
    assert KEY not in repr(found) + repr(block)
    assert dashboard_of(name, "https://made.example/").headers == found.headers
    assert dashboard_of(name, "https://made.example/").address == "https://made.example"
    assert dashboard_of(None, "http://head:8265").address == "http://head:8265"
    assert RayCluster(address="https://ray.example", verify=False).dashboard().verify is False


def test_a_cluster_says_its_version_or_what_is_wrong(server: PrefectServer) -> None:
    with dashboard(lambda *_: (200, {"ray_version": "2.60.0"})) as (address, _):
        assert RayCluster(address=address).version() == "2.60.0"
    with pytest.raises(Unavailable, match=r"no Ray dashboard answers at http://127\.0\.0\.1:1"):
        RayCluster(address="http://127.0.0.1:1").version()
    with pytest.raises(ConfigError, match="address 'head' is not allowed; give the dashboard's, http://head:8265"):
        RayCluster(address="head").version()
    with pytest.raises(
        ConfigError, match=r"cluster: .* has no block 'none-such' of type 'ray-cluster'; .*RayCluster\("
    ):
        dashboard_of("none-such", None)


def test_prefect_registers_the_blocks_and_finds_them_by_their_names(
    saved: Callable[[Block], str], server: PrefectServer
) -> None:
    name = saved(StudyStore(url="s3://bucket/studies"))
    program = f"from prefect.blocks.core import Block; print(type(Block.load('study-store/{name}')).__module__)"
    register = ["-m", "prefect", "block", "register", "-m", "tune_tasks_prefect.blocks"]
    for arguments, expected in ((register, "Study Store"), (["-c", program], "tune_tasks_prefect.blocks")):
        done = subprocess.run(
            [sys.executable, *arguments], env=server.environment, capture_output=True, text=True, check=True
        )
        assert expected in done.stdout
