"""``python -m sb3_bomrl.zoo SCRIPT ...`` runs one of rl_zoo3's scripts."""

import runpy
import sys

from sb3_bomrl.zoo.enjoy import ADAPTING_SCRIPTS, check_can_show, run_adapted
from sb3_bomrl.zoo.registration import register

SCRIPTS: dict[str, str] = {
    "train": "rl_zoo3.train",
    "enjoy": "rl_zoo3.enjoy",
    "record_video": "rl_zoo3.record_video",
    "record_training": "rl_zoo3.record_training",
    "plot_train": "rl_zoo3.plots.plot_train",
    "all_plots": "rl_zoo3.plots.all_plots",
    "plot_from_file": "rl_zoo3.plots.plot_from_file",
    "push_to_hub": "rl_zoo3.push_to_hub",
    "load_from_hub": "rl_zoo3.load_from_hub",
}


def main() -> None:
    """Run one of rl_zoo3's scripts with its own arguments."""
    if len(sys.argv) < 2 or sys.argv[1] not in SCRIPTS:
        given = f", got {sys.argv[1]!r}" if len(sys.argv) > 1 else ""
        sys.exit(f"usage: python -m sb3_bomrl.zoo SCRIPT ...\nSCRIPT must be one of {', '.join(SCRIPTS)}{given}")
    script = sys.argv.pop(1)
    register()
    check_can_show(script, sys.argv[1:])
    module = SCRIPTS[script]
    if script in ADAPTING_SCRIPTS:
        run_adapted(module)
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=False)


main()
