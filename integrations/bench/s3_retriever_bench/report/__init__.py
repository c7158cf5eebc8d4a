"""Showing what was measured: tables and pictures."""
