"""`cache`: what ways of keeping keys and values cost and lose."""
