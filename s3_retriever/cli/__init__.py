"""The command `s3r`."""


def main() -> None:
    """Run the command line."""
    from s3_retriever.cli.app import app
    from s3_retriever.cli.console import accept_any_terminal

    accept_any_terminal()
    app(prog_name="s3r")
