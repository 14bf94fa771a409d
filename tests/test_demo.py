"""The demo as a user runs it, on a small budget."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_demo(output, *arguments):
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--output", str(output), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env={**os.environ, "MPLBACKEND": "Agg"})


def test_demo_trains_adapts_prints_and_draws(tmp_path):
    done = run_demo(tmp_path, "--total-timesteps", "40000", "--n-eval-episodes", "2", "--no-pretrained")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^[\d,]+ of 40,000 steps \(\d+%\), .* before and .* after adaptation$", done.stdout, re.MULTILINE)
    assert "against" in done.stdout
    assert (tmp_path / "adaptation.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "model.zip").exists()
    assert not (tmp_path / "checkpoints").exists()
    rows = list(csv.DictReader((tmp_path / "adaptation.csv").read_text().splitlines()))
    assert len(rows) == 2 * 19 * 4
    assert {float(row["task"]) for row in rows} == {round(0.1 * i, 1) for i in range(1, 20)}
    assert all(abs(float(row["measured"])) < 20 for row in rows), "a speed"
    (line,) = re.findall(r"^untrained +\|(.*)$", done.stdout, re.MULTILINE)
    for k, shown in enumerate(line.split("|")):
        scored = [r for r in rows if r["policy"] == "untrained" and int(r["adaptation_steps"]) == k]
        assert float(shown) == pytest.approx(sum(float(r["mean_return"]) for r in scored) / 19, abs=0.06)
