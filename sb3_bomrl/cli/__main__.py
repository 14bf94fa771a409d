"""``python -m sb3_bomrl.cli`` is ``bomrl``."""

from sb3_bomrl.cli import main

if __name__ == "__main__":
    main()
