"""Real servers for tests and benchmarks: each a context manager that starts one on free ports and gives its address.

A server ends with its block, and with the process that started it, however that ends. What cannot be started here
raises `Missing`, whose text says which program is missing and how to get it. Nothing here imports pytest.
"""

from __future__ import annotations

from tests.servers.processes import Missing

ACCESS = "user"
SECRET = "canary-secret-8c1f2e"
BUCKET = "studies"
"""The account and the bucket that every server here has; tests look for the secret where it must not be."""

__all__ = ["ACCESS", "BUCKET", "SECRET", "Missing"]
