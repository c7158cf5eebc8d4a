"""`inference`: answers from evidence beside a cache of the whole context."""
