"""SAILS: LoRA that starts in directions that the features of an autoencoder name."""

from s3_retriever.adapters.report import Feature, Firing, ModuleUpdate, SailsReport
from s3_retriever.errors import S3Error

try:
    from s3_retriever.adapters.sails import sails_init
except ModuleNotFoundError as error:
    if error.name != "peft":
        raise
    raise S3Error(
        "Adapters need the library peft; install it with: pip install 's3-retriever[peft]'"
    ) from error

__all__ = ["Feature", "Firing", "ModuleUpdate", "SailsReport", "sails_init"]
