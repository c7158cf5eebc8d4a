"""`start_ray`: the cluster that is there, or one of this machine alone."""

from __future__ import annotations

import logging
import os

import ray


def start_ray() -> None:
    """Connect to Ray unless that is done: to the cluster `RAY_ADDRESS` names, or start one here.

    One that is started here is asked to send no statistics to Ray's makers.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What later versions of Ray do anyway; without it they warn.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
