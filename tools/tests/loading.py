"""Loads the tools that are scripts without `.py` as modules."""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent
ROOT = TOOLS.parent


def tool(name: str):
    """Returns tools/NAME as a module."""
    loader = importlib.machinery.SourceFileLoader(name.replace("/", "_"), str(TOOLS / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module  # dataclasses look their module up by name
    loader.exec_module(module)
    return module
