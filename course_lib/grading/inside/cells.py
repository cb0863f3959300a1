"""The cells of a notebook as Python: what IPython adds to the language is taken out or shimmed."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
import types

OTHER_LANGUAGES = ("bash", "sh", "script", "html", "javascript", "js", "latex", "markdown", "svg",
                   "writefile", "perl", "ruby", "R", "sql", "cython")  # fmt: skip
_MAGIC = re.compile(r"^(\s*)(?:[%!]|\?+\w)")
_ASSIGNED = re.compile(r"^(\s*)([\w.,\[\] ]+?)\s*=\s*[%!]\s*\w")
_QUESTION = re.compile(r"^(\s*)[\w.]+\?{1,2}\s*$")


def plain_source(source: str) -> str:
    """Return the cell without IPython's magics and shell lines; as it is if it is Python already.

    `%%time` and its like are dropped and the rest of the cell kept; a cell in another language
    (`%%bash`) becomes empty; `x = !command` becomes `x = None`.
    """
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    if not re.search(r"^\s*(%|!|\?|[\w.,\[\] ]+=\s*[%!]|.*\?\s*$)", source, re.MULTILINE):
        return source
    lines = source.split("\n")
    first = next((k for k, line in enumerate(lines) if line.strip()), 0)
    if lines[first].startswith("%%"):
        name = lines[first][2:].split()[0] if lines[first][2:].split() else ""
        if name in OTHER_LANGUAGES:
            return ""
        lines[first] = ""
        return plain_source("\n".join(lines))
    # Line by line, where the compiler stumbles: a line of a string may look like a magic.
    for _ in range(len(lines)):
        stumble = find_stumble("\n".join(lines))
        if stumble is None or not 0 < stumble <= len(lines):
            break
        plain = _plain_line(lines[stumble - 1])
        if plain == lines[stumble - 1]:
            break
        rest = stumble - 1
        while lines[rest].endswith("\\") and rest + 1 < len(lines):  # `!pip install a \`
            rest += 1
            lines[rest - 1] = ""
        lines[rest] = ""
        lines[stumble - 1] = plain
    return "\n".join(lines)


def _plain_line(line: str) -> str:
    if found := _ASSIGNED.match(line):
        return f"{found[1]}{found[2]} = None"
    if found := _MAGIC.match(line) or _QUESTION.match(line):
        return f"{found[1]}pass"
    return line


def find_stumble(source: str) -> int | None:
    """Return the line at which the text is no Python; None if it is, or the line is unknown."""
    try:
        compile_cell(source, "cell")
    except SyntaxError as error:
        return error.lineno
    except (ValueError, RecursionError, MemoryError):
        pass
    return None


def compile_cell(source: str, name: str) -> types.CodeType:
    """Return the code of a cell, in which `await` may stand outside of a function."""
    return compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def run_cell(source: str, name: str, namespace: dict) -> None:
    """Run one cell in `namespace`."""
    code = compile_cell(plain_source(source), name)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, namespace))
    else:
        exec(code, namespace)


class _Quiet:
    """Stands for whatever a notebook shows things with: takes everything, does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> _Quiet:
        return self

    def __getattr__(self, name: str) -> _Quiet:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __bool__(self) -> bool:
        return False  # `if get_ipython():` asks whether this is a notebook with all its powers

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __iter__(self):
        return iter(())


class _QuietModule(types.ModuleType):
    """A module in which every name is there."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Quiet,), {}) if name[:1].isupper() else _Quiet()


def make_namespace() -> dict:
    """Return the namespace of a fresh notebook, with the names that IPython and Colab put there."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    quiet = _Quiet()
    for name in ("IPython", "IPython.display", "IPython.core.display", "IPython.core",
                 "google.colab", "ipywidgets"):  # fmt: skip
        sys.modules[name] = _QuietModule(name)
        sys.modules[name].__path__ = []
    sys.modules["IPython"].version_info = (8, 30, 0)  # matplotlib asks
    module.__dict__.update(
        display=quiet, get_ipython=quiet, In=[], Out={}, _="", __="", exit=_leave, quit=_leave,
        __builtins__=__builtins__,
    )  # fmt: skip
    return module.__dict__


def _leave(*args: object) -> None:
    raise SystemExit("the notebook asked to stop")
