"""What the documentation names exists: functions, tests, public names, files. Its pages have their parts in order."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import sb3_bomrl

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
ALGORITHM_PAGES = {
    "bomrl": ("BOMRL",),
    "maml": ("MAML", "FOMAML"),
    "emaml": ("EMAML",),
    "promp": ("ProMP",),
    "reptile": ("Reptile",),
    "rl2": ("RL2",),
}
SECTIONS = ["Notes", "Can I use?", "Example", "Results", "How to replicate", "Parameters"]


def headings(page):
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^## (.+)$", text, re.MULTILINE)


def equation_rows():
    """(equation, function cell, test cell) of the table."""
    table = (DOCS / "equations.md").read_text().split("## Where it is")[1].split("## ")[0]
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\|.*\|$", table, re.MULTILINE)
    ]
    return [tuple(row) for row in rows[2:]]


def resolve(name, module):
    """Return the module of a name that is given from ``sb3_bomrl`` on, or within ``module``."""
    if "." not in name:
        assert hasattr(module, name), f"{module.__name__} has no {name}"
        return module
    parts = name.split(".")
    module, value = sb3_bomrl, sb3_bomrl
    for number, part in enumerate(parts):
        if not hasattr(value, part):
            value = importlib.import_module(".".join(["sb3_bomrl", *parts[: number + 1]]))
        else:
            value = getattr(value, part)
        module = value if isinstance(value, type(sb3_bomrl)) else module
    assert callable(value), f"{name} is no function"
    return module


def names_of_tests(path):
    """Names of a file's test functions; every file's, with an empty set, for a folder."""
    assert path.exists(), path
    tree = ast.parse(path.read_text()) if path.is_file() else ast.parse("")
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def check_tests(text):
    """Every test named in a text exists; returns how many were named."""
    file, references = None, re.findall(r"`(tests/[\w/.]+|(?=::))(?:::(test_\w+))?`", text)
    for path, name in references:
        file = ROOT / path if path else file
        assert file is not None, name
        assert not name or name in names_of_tests(file), f"{file.name} has no {name}"
        assert file.exists(), file
    return len(references)


@pytest.mark.parametrize("row", equation_rows(), ids=lambda row: row[0])
def test_every_equation_has_a_function_and_a_test(row):
    _, functions, tests = row
    module = None
    names = re.findall(r"`([\w.]+)`", functions)
    assert names
    for name in names:
        module = resolve(name, module)
    assert check_tests(tests) >= 1


def test_every_equation_is_in_the_table():
    """(M1) to (M5) are written out on the pages of the methods, the bounds in theory.md."""
    pages = ("equations", *ALGORITHM_PAGES)
    tags = set(re.findall(r"\\tag\{([AM]\d)\}", "".join((DOCS / f"{page}.md").read_text() for page in pages)))
    assert len(tags) >= 11
    cells = " ".join(row[0] for row in equation_rows())
    spans = re.findall(r"\(([AM])(\d)\)–\([AM](\d)\)", cells)
    named = set(re.findall(r"\(([AM]\d)\)", cells)) | {
        f"{letter}{number}" for letter, first, last in spans for number in range(int(first), int(last) + 1)
    }
    assert tags == named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page):
    check_tests(page.read_text())


def test_names_that_do_not_exist_are_noticed():
    with pytest.raises(AssertionError, match="has no solve_outer"):
        resolve("solve_outer", sb3_bomrl.algorithms.bomrl)
    with pytest.raises(ModuleNotFoundError):
        resolve("core.hypergradients.implicit_hypergradient", None)
    with pytest.raises(AssertionError, match="has no test_nothing"):
        check_tests("`tests/test_docs.py::test_nothing`")
    with pytest.raises(AssertionError, match="has no test_nothing"):
        check_tests("`tests/test_docs.py`, `::test_nothing`")
    with pytest.raises(AssertionError, match="test_dox"):
        check_tests("`tests/test_dox.py`")


@pytest.mark.parametrize("page", ALGORITHM_PAGES)
def test_algorithm_pages_have_their_sections_in_order(page):
    assert [heading for heading in headings(f"{page}.md") if heading in SECTIONS] == SECTIONS
    for name in ALGORITHM_PAGES[page]:
        assert re.search(rf"^\.\. autoclass:: sb3_bomrl\.{name}$", (DOCS / f"{page}.md").read_text(), re.MULTILINE)


def test_the_reference_has_every_public_name():
    text = (DOCS / "api.md").read_text()
    named = set(re.findall(r"sb3_bomrl\.(\w+)$", text, re.MULTILINE))
    assert {*sb3_bomrl.__all__, "RL2"} - {"__version__"} <= named


def layers(text):
    """The layers of the import contract, from above: sets of names."""
    contract = re.search(r"^layers = (\[.*?\])$", text, re.MULTILINE | re.DOTALL)[1]
    return [set(re.findall(r"\w+", layer)) for layer in ast.literal_eval(contract)]


def test_the_picture_of_the_layers_is_the_import_contract():
    picture = re.search(r"```text\n(.*?)```", (DOCS / "architecture.md").read_text(), re.DOTALL)[1]
    drawn = [set(line.split("│")[0].split()) for line in picture.splitlines()]
    assert drawn == layers((ROOT / "pyproject.toml").read_text())
    package = ROOT / "sb3_bomrl"
    modules = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert modules - {"__init__"} == set().union(*drawn)


def test_where_to_change_what_names_files():
    table = (DOCS / "architecture.md").read_text().split("## Where do I change what?")[1]
    table_rows = re.findall(r"^\| (.+) \| (.+) \|$", table, re.MULTILINE)[1:]
    assert len(table_rows) == 10
    for _, files in table_rows:
        for file in re.findall(r"`([\w/]+(?:\.py|/))`", files):
            assert (ROOT / "sb3_bomrl" / file).exists(), file


def test_every_page_is_in_the_table_of_contents():
    toctree = (DOCS / "index.md").read_text().split("```{toctree}")[1].split("```")[0].split()
    listed = {entry for entry in toctree if (DOCS / f"{entry}.md").exists()}
    assert {"tutorial_task_family", "tutorial_from_ppo", "faq", "api", "changelog", *ALGORITHM_PAGES} <= listed
    assert "*" in toctree  # all others


def test_the_task_family_tutorial_keeps_its_promise():
    """It trains, adapts and evaluates in at most 30 lines."""
    code = re.search(
        r"^```python\n(.*?)^```$", (DOCS / "tutorial_task_family.md").read_text(), re.MULTILINE | re.DOTALL
    )[1]
    assert len([line for line in code.splitlines() if line]) <= 30
    for part in ("TaskSamplerWrapper", ".learn(", ".adapt(", "evaluate_adaptation("):
        assert part in code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_short(page):
    """At most 1,200 words, and 100 in an item of a list; the README has at most 150 lines."""
    text = page.read_text()
    if page.stem not in ("theory", "api", "changelog"):
        assert len(text.split()) <= 1_200
    if page.stem == "README":
        assert len(text.splitlines()) <= 150
    items = re.findall(r"^ *(?:-|\d+\.) .*(?:\n {2,}\S.*)*", text, re.MULTILINE)
    assert max((len(item.split()) for item in items), default=0) <= 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Relative links, figures and {doc} references."""
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", text):
        assert (DOCS / f"{target}.md").exists(), target
