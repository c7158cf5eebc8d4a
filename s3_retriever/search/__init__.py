"""Search: from a question to spans of evidence, and why they were chosen."""

from s3_retriever.search.explanation import Explanation, explain
from s3_retriever.search.filtering import admitted
from s3_retriever.search.heat import Firings, Heat, firings, heat
from s3_retriever.search.pipeline import rank, search
from s3_retriever.search.relevance import knows_relevance
from s3_retriever.search.selection import Span, select

__all__ = [
    "Explanation",
    "Firings",
    "Heat",
    "Span",
    "admitted",
    "explain",
    "firings",
    "heat",
    "knows_relevance",
    "rank",
    "search",
    "select",
]
