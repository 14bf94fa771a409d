"""``python -m sb3_bomrl.zoo SCRIPT ...`` runs one of rl_zoo3's scripts."""

from sb3_bomrl.zoo.scripts import main

if __name__ == "__main__":
    main()
