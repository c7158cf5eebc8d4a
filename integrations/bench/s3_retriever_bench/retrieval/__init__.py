"""`quality`, `relevance` and `retrieval`: what is found of labelled evidence and documents."""
