"""Places on loopback, the same as where places themselves are tried."""

from __future__ import annotations

from tests.io.places.conftest import any_objects, certificates, nobodys_environment, objects, profile, server  # noqa: F401
