"""`python -m s3_retriever.cli`, for where the command `s3` is not on the path."""

from s3_retriever.cli import main

main()
