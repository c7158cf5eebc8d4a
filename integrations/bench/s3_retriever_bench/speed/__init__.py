"""`speed`, `memory` and `startup`: what indexing, searching and starting cost."""
