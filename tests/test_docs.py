"""Every Python block of the README and the documentation runs, in order, page by page."""

import re
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# long trainings are cut: what is tested is that the code runs
SHORTER = (
    ("2_000_000", "20_000"),
    ("100_000", "8_000"),
    ("learn(40_000)", "learn(10_000)"),
    ("learn(20_000)", "learn(10_000)"),
)


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")  # SB3's progress bar
@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda page: page.name)
def test_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names = {"__name__": "__main__"}
    for block in BLOCK.findall(page.read_text()):
        for long, short in SHORTER:
            block = block.replace(long, short)
        exec(compile(block, str(page), "exec"), names)
