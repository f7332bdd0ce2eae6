"""What all S3 servers of the tests share: how a process reaches one, and how the bucket is made."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from tests.servers import ACCESS, BUCKET, SECRET

REGION = "us-east-1"


@dataclass(frozen=True)
class S3Server:
    """A server that answers at `url`."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to reach the server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def place(self) -> str:
        """The URL of a place in the bucket that nothing else uses."""
        return f"s3://{BUCKET}/{uuid4().hex}"

    def make_bucket(self, name: str = BUCKET) -> None:
        """Creates a bucket."""
        from botocore.session import Session

        client = Session().create_client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            region_name=REGION,
        )
        client.create_bucket(Bucket=name)
        client.close()
