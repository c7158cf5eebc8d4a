"""Search: co-activation and lexical scores of sentences, fused and cut into evidence spans."""

from s3_retriever.search.explanation import Explanation, explain
from s3_retriever.search.filtering import Where
from s3_retriever.search.ranking import Mode, rank
from s3_retriever.search.selection import Order, Span
from s3_retriever.search.signals import Coactivation, FeatureWeights, question_weights

__all__ = [
    "Coactivation",
    "Explanation",
    "FeatureWeights",
    "Mode",
    "Order",
    "Span",
    "Where",
    "explain",
    "question_weights",
    "rank",
]
