"""The package as a distribution: its version, its typing marker, and what importing it drags in."""

import re
import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import sb3_bomrl

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sb3_bomrl"
PURE_FOLDERS = ("core", "tabular", "theory")


def modules_after(statements: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a new interpreter after it ran ``statements``."""
    script = statements + "\nimport sys\nprint('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def pure_module_names() -> list[str]:
    """Every module of the layers that are mathematics only."""
    paths = [path for folder in PURE_FOLDERS for path in (PACKAGE / folder).rglob("*.py")] + [PACKAGE / "types.py"]
    return sorted(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)


def test_version_is_written_in_one_place():
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", sb3_bomrl.__version__)
    assert version("sb3-bomrl") == sb3_bomrl.__version__
    assert "version" not in re.findall(r"(?m)^(\w+)\s*=", (ROOT / "pyproject.toml").read_text())
    holders = [path for path in PACKAGE.rglob("*.py") if re.search(r"(?m)^__version__\s*=", path.read_text())]
    assert holders == [PACKAGE / "__init__.py"]


def test_typing_marker_lies_in_the_package():
    assert files("sb3_bomrl").joinpath("py.typed").is_file()


def test_importing_the_package_needs_no_extra():
    baseline = modules_after("import stable_baselines3")
    added = modules_after("import sb3_bomrl") - baseline
    assert "sb3_bomrl" in added
    assert not added & {"mujoco", "matplotlib", "ray", "sb3_contrib", "scipy", "pandas"}
    assert not baseline & {"mujoco", "matplotlib", "ray"}, "the comparison above would not notice these"


def test_pure_layers_import_no_framework():
    names = pure_module_names()
    assert "sb3_bomrl.core.distances" in names
    # an empty parent package, so that sb3_bomrl/__init__.py (which imports the SB3 shell) does not run
    parent = (
        "import importlib, sys, types\n"
        "package = types.ModuleType('sb3_bomrl')\n"
        f"package.__path__ = [{str(PACKAGE)!r}]\n"
        "sys.modules['sb3_bomrl'] = package\n"
    )
    loaded = modules_after(parent + "".join(f"importlib.import_module({n!r})\n" for n in names))
    assert "torch" in loaded
    assert not loaded & {"stable_baselines3", "sb3_contrib", "gymnasium", "mujoco", "ray"}
