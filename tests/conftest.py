"""Fixtures that all rooms share come from `helpers.hosts`."""

pytest_plugins = ["helpers.hosts", "helpers.gguf_files"]
