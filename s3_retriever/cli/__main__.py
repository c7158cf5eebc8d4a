"""`python -m s3_retriever.cli`, for when the command `s3r` is not on the path."""

from s3_retriever.cli import main

main()
