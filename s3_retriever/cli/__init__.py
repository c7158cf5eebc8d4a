"""The command `s3r`."""


def main() -> None:
    """Run the command line."""
    from s3_retriever.cli.app import app

    app(prog_name="s3r")
