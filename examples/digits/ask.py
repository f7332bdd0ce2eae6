"""Asks the digits endpoint: posts the test images, and compares what it answers with what they are.

`tune-tasks deploy examples/digits/study.yaml` starts it. Give its address, where that is another one.
"""

from __future__ import annotations

import json
import sys
import urllib.request

from objective import data

URL = "http://127.0.0.1:8000/digits-mlp"
SHOWN = 10


def ask(url: str, images: list[list[float]]) -> tuple[list[int], str]:
    """The digits that the endpoint sees in the images, and the version of the model that looked."""
    request = urllib.request.Request(url, data=json.dumps(images).encode(), method="POST")  # noqa: S310  # as given
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310  # as above
        return json.loads(reply.read()), reply.headers["x-model-version"]


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else URL
    images, labels = data()["test"]
    digits, version = ask(url, images.tolist())
    right = sum(digit == label for digit, label in zip(digits, labels, strict=True))
    print(f"asked    {' '.join(map(str, labels[:SHOWN]))} ...")
    print(f"answered {' '.join(map(str, digits[:SHOWN]))} ...")
    print(f"version {version} at {url}: {right} of {len(labels)} images right")
