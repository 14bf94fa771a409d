"""
Every code block of the README and the documentation works.

The Python blocks of a page run in order, in one namespace and in an empty folder, as they stand in the text. The
fixture ``small_budgets`` bounds sizes and budgets *inside* the package and Stable-Baselines3. A block that needs a
service or a package which the tests do not have is marked by a comment on the line above its fence,

    <!-- not run: needs wandb -->

and is compiled, and what it imports from ``sb3_bomrl`` must exist. The commands of bash blocks, and those that begin
with ``python -m`` or ``bomrl`` in the text, are parsed by their own parsers and not carried out.
"""

import argparse
import ast
import functools
import importlib
import importlib.util
import inspect
import re
import runpy
import shlex
import sys
import warnings
from importlib.metadata import metadata
from pathlib import Path
from typing import NamedTuple

import matplotlib
import pytest
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_bomrl import BOMRL, AdaptationCallback, MetaAlgorithm
from sb3_bomrl.algorithms import evaluation, meta_algorithm

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
INLINE_COMMAND = re.compile(r"`((?:python -m|bomrl) [^`]+)`")
SHOWN_ONLY = ("{eval-rst}", "{toctree}", "{include} ../CHANGELOG.md", "text", "yaml")
"""Not code, but for the configuration of RL² in zoo.md, which ``tests/zoo/test_zoo_shows.py`` trains."""
TABLE = re.compile(r"\{include\} (figures/\w+\.md)")


class Block(NamedTuple):
    """A fenced block; ``reason`` says why it is not run, ``None`` for one that is."""

    reason: str | None
    language: str
    text: str


def blocks(page):
    return [Block(*match.group("reason", "language", "text")) for match in FENCE.finditer(page.read_text())]


def pages_with(language):
    pages = [page for page in PAGES if any(block.language == language for block in blocks(page))]
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


# ---------------------------------------------------------------------- Python


@pytest.fixture
def small_budgets(monkeypatch):
    """
    Bound what pages ask for.

    One meta-iteration (one rollout of SB3's algorithms) of at most 20 steps per environment and 3 inner steps; at most
    2 environments per task where the package makes them; 2 episodes to adapt on; an evaluation in every meta-iteration,
    with 1 episode of each kind per task.
    """

    def bound(owner, name, **largest):
        """Let a function see at most this much, whether it is given or a default."""
        original = getattr(owner, name)
        signature = inspect.signature(original)

        @functools.wraps(original)
        def bounded(*args, **kwargs):
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            if given.arguments.get("inner_solver") != "closed_form":  # it takes no steps
                given.arguments.update({key: min(given.arguments[key], value) for key, value in largest.items()})
            return original(*given.args, **given.kwargs)

        monkeypatch.setattr(owner, name, bounded)

    bound(MetaAlgorithm, "learn", total_timesteps=1)
    bound(OnPolicyAlgorithm, "learn", total_timesteps=1)
    bound(MetaAlgorithm, "__init__", n_steps=20)
    bound(meta_algorithm, "make_meta_vec_env", n_envs=10)
    bound(BOMRL, "__init__", n_inner_steps=3)
    bound(AdaptationCallback, "__init__", eval_freq=30)
    bound(MetaAlgorithm, "adapt", n_episodes=2)
    bound(evaluation, "adaptation_curve", n_episodes=1, n_eval_episodes=1)


def resolve(tree):
    """Fail unless everything that code imports from the package exists."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "sb3_bomrl":
                    importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "sb3_bomrl":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")  # SB3's progress bar
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:n_inner_steps=3 has no effect")  # of small_budgets
@pages_with("python")
def test_python_blocks_run(page, tmp_path, monkeypatch, small_budgets):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language != "python":
            continue
        code = compile(block.text, f"{page.name}:\n{block.text}", "exec")
        if block.reason is None:
            exec(code, names)
        else:
            resolve(ast.parse(block.text))


def test_blocks_that_are_not_run_have_their_imports_resolved():
    resolve(ast.parse("from sb3_bomrl import BOMRL\nimport sb3_bomrl.zoo"))
    with pytest.raises(AssertionError, match="sb3_bomrl has no BOMLR"):
        resolve(ast.parse("from sb3_bomrl import BOMLR"))
    with pytest.raises(ModuleNotFoundError):
        resolve(ast.parse("import sb3_bomrl.zooo"))


def test_every_fence_is_found_and_known():
    """A fence that the pattern misses, or of a language that nothing checks, would go unnoticed."""
    for page in PAGES:
        found = blocks(page)
        assert 2 * len(found) == len(re.findall(r"^ *```", page.read_text(), re.MULTILINE)), page.name
        for block in found:
            if table := TABLE.fullmatch(block.language):
                assert (page.parent / table[1]).is_file(), (page.name, table[1])
            else:
                assert block.language in ("python", "bash", *SHOWN_ONLY), (page.name, block.language)


# ---------------------------------------------------------------------- commands


class Parsed(Exception):
    """A program has parsed its arguments."""


def has_placeholder(words):
    """Tell if a command stands for many: it ends in ``...`` or holds a word in capitals."""
    return any(re.fullmatch(r"[A-Z]{2,}|\.\.\.", word) for word in words)


def parse_bomrl(words):
    from typer.main import get_command

    from sb3_bomrl.cli.app import app

    group = get_command(app)
    with group.make_context("bomrl", list(words)) as context:
        _, command, rest = group.resolve_command(context, list(words))
        if not has_placeholder(rest):
            command.make_context(command.name, rest, parent=context)


def parse_module(words, monkeypatch):
    """Run a module up to where its argument parser has accepted the arguments."""
    name, *arguments = words
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(name)
    if has_placeholder(arguments):
        return
    if name.startswith("rl_zoo3."):
        return  # tests/zoo runs its scripts
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        raise Parsed

    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(Parsed):
            runpy.run_module(name, run_name="__main__", alter_sys=False)


def check_pip(words):
    """Requirements on this package name extras that there are."""
    assert words[0] == "install", words
    extras = set(metadata("sb3-bomrl").get_all("Provides-Extra"))
    for word in words:
        match = re.fullmatch(r"(?:sb3-bomrl|\.)\[(.+)\]", word)
        assert match is None or set(match[1].split(",")) <= extras, word


def check_make(words):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets), words


def check_command(line, monkeypatch):
    words = shlex.split(line, comments=True)
    program, rest = Path(words[0]).name if words else "", words[1:]
    if program == "bomrl":
        parse_bomrl(rest)
    elif program == "make":
        check_make(rest)
    elif program == "pip":
        check_pip(rest)
    elif program in ("python", "python3") and rest[:1] == ["-m"]:
        if rest[1] == "pip":
            check_pip(rest[2:])
        elif rest[1] != "venv":
            parse_module(rest[1:], monkeypatch)
    elif words:
        raise ValueError(f"no check for the command {line!r}")


@pages_with("bash")
def test_bash_blocks_parse(page, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    for block in blocks(page):
        if block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                check_command(line, monkeypatch)


def test_commands_in_the_text_parse(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    commands = [match.replace("\n", " ") for page in PAGES for match in INLINE_COMMAND.findall(page.read_text())]
    assert any("sb3_bomrl.zoo" in command for command in commands)
    for command in commands:
        if re.fullmatch(r"bomrl [a-z]+", command):  # its name
            command += " ..."
        if command != "bomrl COMMAND --help":
            check_command(command, monkeypatch)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("bomrl trian bomrl/HalfCheetahVel-v0", "No such command"),
        ("bomrl train bomrl/HalfCheetahVel-v0 --stpes 3", "No such option"),
        ("bomrl evaluate runs/cheetah --steps three", "valid integer"),
        ("make tset", "tset"),
        ("pip install 'sb3-bomrl[zooo]'", "zooo"),
        ("python -m benchmarks.frozen_lake figure2", "invalid choice: 'figure2'"),
        ("python -m benchmarks.thruput", "thruput"),
        ("python -m sb3_bomrl.zoo train --algo bomrll", "invalid choice: 'bomrll'"),
        ("python -m sb3_bomrl.zoo train --algo bomrl --eval-frequency 3", "unrecognized arguments: --eval-frequency"),
        ("curl example.org", "no check for the command"),
    ],
)
def test_wrong_commands_are_noticed(line, error, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 — each parser has its own way to say no
        check_command(line, monkeypatch)
    assert error in f"{caught.value!r} {caught.value} {capsys.readouterr().err}"
