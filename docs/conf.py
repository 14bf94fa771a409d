"""Sphinx configuration; `make docs` builds with warnings as errors."""

from importlib.metadata import version as installed_version

project = "sb3_bomrl"
author = "The sb3_bomrl developers"
project_copyright = "2026, the sb3_bomrl developers"
release = installed_version("sb3-bomrl")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.mathjax",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
]
autodoc_typehints = "none"
autoclass_content = "class"
autosummary_generate = False
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3

exclude_patterns = ["_build", "figures"]  # the tables there are included in pages
html_theme = "furo"
html_title = f"sb3_bomrl {release}"
