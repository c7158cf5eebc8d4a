"""Search: from a question to spans of evidence, and why they were chosen."""

from s3_retriever.search.documents import DocumentResult
from s3_retriever.search.explanation import Explanation, explain
from s3_retriever.search.filtering import admitted
from s3_retriever.search.heat import Firings, Heat, firings, heat
from s3_retriever.search.pipeline import rank, search
from s3_retriever.search.relevance import knows_relevance
from s3_retriever.search.selection import Limits, select
from s3_retriever.search.span import Span

__all__ = [
    "DocumentResult",
    "Explanation",
    "Firings",
    "Heat",
    "Limits",
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
