"""`longcontext`: what a model answers from what methods leave of long contexts."""
