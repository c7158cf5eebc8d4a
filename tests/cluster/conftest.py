"""One Ray for all tests of the room."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def cluster():
    ray = pytest.importorskip("ray")
    from s3_retriever.cluster.session import start_ray

    start_ray()
    yield ray
    ray.shutdown()
