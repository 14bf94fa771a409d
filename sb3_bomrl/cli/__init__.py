"""The command line ``bomrl``."""

import sys


def main() -> None:
    """Run ``bomrl``, or say which extra it needs."""
    try:
        from sb3_bomrl.cli import app
    except ImportError as error:
        sys.exit(f"bomrl: error: {error}: run `pip install 'sb3-bomrl[cli]'`")
    app.main()
