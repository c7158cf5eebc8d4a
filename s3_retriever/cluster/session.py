"""`start_ray`: the cluster that is there, or one of this machine alone."""

from __future__ import annotations

import logging
import os

import ray
from ray.exceptions import RayError

from s3_retriever.errors import ServerError, brief


def start_ray() -> None:
    """Connect to Ray unless that is done: to the cluster `RAY_ADDRESS` names, or start one here.

    One that is started here is asked to send no statistics to Ray's makers.

    Raises:
        ServerError: The cluster cannot be reached, or none can be started.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What later versions of Ray do anyway; without it they warn.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (RayError, RuntimeError, ConnectionError, ValueError, OSError) as error:
        raise ServerError(f"Ray cannot be started: {brief(error)}.") from error
