"""Fixtures of hosts of every family."""

from helpers.families import folder_of, host_of

__all__ = ["folder_of", "host_of"]
