"""`adapt` and `recovery`: how adapters start, and the theory behind it."""
