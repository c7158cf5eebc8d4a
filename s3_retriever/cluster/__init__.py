"""Beyond one machine: scan and search on Ray, with the results of one index."""

from s3_retriever.errors import S3Error

try:
    from s3_retriever.cluster.building import build
    from s3_retriever.cluster.reading import read_documents
    from s3_retriever.cluster.sharded import ShardedIndex
except ModuleNotFoundError as error:
    # Ray is also installed without what reads data, which needs pyarrow.
    if (error.name or "").partition(".")[0] not in ("ray", "pyarrow", "pandas"):
        raise
    raise S3Error(
        "Clusters need the library Ray; install it with: pip install 's3-retriever[ray]'"
    ) from error

__all__ = ["ShardedIndex", "build", "read_documents"]
