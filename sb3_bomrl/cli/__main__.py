"""``python -m sb3_bomrl.cli`` is ``bomrl``."""

from sb3_bomrl.cli.app import main

main()
