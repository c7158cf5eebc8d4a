"""The host: a transformer that reads text in windows and lets its activations be tapped."""

from s3_retriever.host.families import FAMILIES, Family
from s3_retriever.host.model import Host
from s3_retriever.host.windows import Window, windows

__all__ = ["FAMILIES", "Family", "Host", "Window", "windows"]
