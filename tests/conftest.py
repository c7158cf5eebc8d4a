"""Fixtures that all rooms share come from `helpers`."""

pytest_plugins = ["helpers.hosts", "helpers.families"]
