"""What must hold of a stored notebook before anything is run: faults named cell by cell.

    python book/_tools/notebook_gates.py [book/chain_rule.ipynb ...]

These are the faults that nbval cannot see: it never compares a cell without an execution count,
skips pictures, and takes a stored warning for a result as long as it comes back. Each gate is one
generator of `Fault`; `GATES` lists them; tests/notebooks shows each of them going red.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.notebook_files import display_name, find_notebooks, normalize, serialize

MAX_NOTEBOOK_BYTES = 600_000
MAX_CELL_LINES = 15
CAPTION_START = "*Figure.* "
RAISES = "raises-exception"  # the tag that allows a cell to end in an error
TWINS = ("tab-pytorch", "tab-tensorflow")

# Any tag or comment that would excuse a cell from being compared.
EXCUSE = re.compile(
    r"NBVAL_(IGNORE_OUTPUT|SKIP|RAISES_EXCEPTION)|PYTEST_VALIDATE_IGNORE_OUTPUT", re.IGNORECASE
)
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:home|root|tmp|Users|usr|var|opt|mnt|private|work|content)/[\w.-]"
    r"|\b[A-Za-z]:\\\w|site-packages|ipykernel_\d+"
)
MARKDOWN_ESCAPE = re.compile(r"\\([\\`*_{}\[\]<>#|$~])")
OBJECT_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
LOG_LINE = re.compile(
    r"^(?:\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d"  # 2026-01-31 12:00:00 ...
    r"|[IWEF]\d{4} \d\d:\d\d"  # I0000 00:00:..., absl's way
    r"|(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\b.{0,40}:"
    r"|.*\b\w+Warning: )",  # UserWarning: ...
    re.MULTILINE,
)


@dataclass(frozen=True)
class Fault:
    """One thing wrong: where (`cell` counts all cells from 1; 0 is the file itself) and what."""

    notebook: str
    cell: int
    cell_id: str
    sentence: str

    def __str__(self) -> str:
        place = f", cell {self.cell} (id {self.cell_id})" if self.cell else ""
        return f"{self.notebook}{place}: {self.sentence}"


@dataclass(frozen=True)
class Stored:
    """A notebook as it lies on the disk, handed to every gate."""

    name: str
    text: str
    notebook: NotebookNode

    def fault(self, index: int, sentence: str) -> Fault:
        """A fault of the cell with this 0-based index."""
        return Fault(self.name, index + 1, self.notebook.cells[index].get("id", "?"), sentence)

    def code_cells(self) -> list[tuple[int, NotebookNode]]:
        """Index and cell of each code cell."""
        return [(i, c) for i, c in enumerate(self.notebook.cells) if c.cell_type == "code"]

    def outputs(self) -> Iterator[tuple[int, NotebookNode, NotebookNode]]:
        """Index, cell and output of each stored output."""
        for index, cell in self.code_cells():
            for output in cell.outputs:
                yield index, cell, output


def output_text(output: NotebookNode) -> str:
    """All words that an output shows: of a stream, of every text form, of an error."""
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}\n" + "\n".join(output.traceback)
    texts = [v for k, v in output.data.items() if not k.startswith("image/") and isinstance(v, str)]
    return "\n".join(texts)


def check_size(stored: Stored) -> Iterator[Fault]:
    """A file that a phone can load."""
    size = len(stored.text.encode())
    if size > MAX_NOTEBOOK_BYTES:
        yield Fault(stored.name, 0, "", f"{size / 1000:.0f} KB, over {MAX_NOTEBOOK_BYTES // 1000}.")


def check_ids(stored: Stored) -> Iterator[Fault]:
    """Each cell has an id, and none has another's."""
    seen: set[str] = set()
    for index, cell in enumerate(stored.notebook.cells):
        if not cell.get("id"):
            yield stored.fault(index, "the cell has no id.")
        elif cell.id in seen:
            yield stored.fault(index, "another cell has the same id.")
        seen.add(cell.get("id", ""))


def check_executed_in_order(stored: Stored) -> Iterator[Fault]:
    """Execution counts are 1..n, as one run from top to bottom leaves them."""
    for expected, (index, cell) in enumerate(stored.code_cells(), start=1):
        if not cell.source.strip():
            yield stored.fault(index, "an empty code cell.")
        if cell.execution_count is None:
            yield stored.fault(index, "never executed: its execution count is null.")
        elif cell.execution_count != expected:
            yield stored.fault(
                index, f"executed out of order: count {cell.execution_count}, not {expected}."
            )


def check_cell_length(stored: Stored) -> Iterator[Fault]:
    """One idea a cell."""
    for index, cell in stored.code_cells():
        lines = sum(bool(line.strip()) for line in cell.source.splitlines())
        if lines > MAX_CELL_LINES:
            yield stored.fault(index, f"{lines} lines of code, over {MAX_CELL_LINES}.")


def check_twins(stored: Stored) -> Iterator[Fault]:
    """`tab-pytorch` is followed at once by `tab-tensorflow`, which never comes alone."""
    tags = [
        set(c.metadata.get("tags", [])) if c.cell_type == "code" else set()
        for c in stored.notebook.cells
    ]
    first, second = TWINS
    for index, own in enumerate(tags):
        following = tags[index + 1] if index + 1 < len(tags) else set()
        previous = tags[index - 1] if index else set()
        if first in own and second in own:
            yield stored.fault(index, f"tagged both `{first}` and `{second}`.")
        elif first in own and second not in following:
            yield stored.fault(index, f"`{first}` is not followed by a `{second}` cell.")
        elif second in own and first not in previous:
            yield stored.fault(index, f"`{second}` does not follow a `{first}` cell.")


def check_no_excuse(stored: Stored) -> Iterator[Fault]:
    """Every output is compared: nothing may switch nbval off."""
    for index, cell in stored.code_cells():
        comments = "\n".join(line for line in cell.source.splitlines() if "#" in line)
        marks = [comments, *(t.replace("-", "_") for t in cell.metadata.get("tags", []))]
        if any(EXCUSE.search(mark) for mark in marks):
            yield stored.fault(index, "excused from comparison by an nbval tag or comment.")


def check_errors(stored: Stored) -> Iterator[Fault]:
    """No stored error, except where the cell announces one."""
    for index, cell, output in stored.outputs():
        if output.output_type == "error" and RAISES not in cell.metadata.get("tags", []):
            yield stored.fault(index, f"a stored error: {output.ename}: {output.evalue[:80]}")


def check_warnings_and_logs(stored: Stored) -> Iterator[Fault]:
    """Nothing on stderr, no warning, no log line: they age with each release of a library."""
    for index, _, output in stored.outputs():
        if output.output_type == "error":
            continue
        text = output_text(output)
        if output.output_type == "stream" and output.name == "stderr":
            yield stored.fault(index, f"stored stderr: {text.strip()[:80]!r}.")
        elif match := LOG_LINE.search(text):
            yield stored.fault(index, f"a stored warning or log line: {match.group(0)[:80]!r}.")


def check_nothing_of_this_machine(stored: Stored) -> Iterator[Fault]:
    """No absolute path and no object's address: they differ on every machine and in every run."""
    for index, _, output in stored.outputs():
        text = output_text(output)
        if match := ABSOLUTE_PATH.search(text):
            line = text[: match.end() + 40].splitlines()[-1].strip()
            yield stored.fault(index, f"an absolute path in an output: {line[-80:]!r}.")
        if match := OBJECT_ADDRESS.search(text):
            yield stored.fault(index, f"an object's address in an output: {match.group(0)}.")


def check_figures_have_words(stored: Stored) -> Iterator[Fault]:
    """A picture comes with computed words, and at once with the caption that repeats them."""
    for index, cell in stored.code_cells():
        for place, output in enumerate(cell.outputs):
            data = output.get("data", {})
            if not any(mime.startswith("image/") for mime in data):
                continue
            words = data.get("text/plain", "").strip()
            if not words or words.startswith(("<", "Figure(")):
                yield stored.fault(index, f"a figure without words: its text is {words[:60]!r}.")
                continue
            for own in output.metadata.values():
                if isinstance(own, dict) and own.get("alt", words) != words:
                    yield stored.fault(index, "a figure whose `alt` differs from its words.")
            following = cell.outputs[place + 1] if place + 1 < len(cell.outputs) else {}
            caption = following.get("data", {}).get("text/markdown", "")
            if not caption.startswith(CAPTION_START):
                yield stored.fault(index, "a figure without its caption: show it with plots.show.")
            elif MARKDOWN_ESCAPE.sub(r"\1", caption[len(CAPTION_START) :].strip()) != words:
                yield stored.fault(index, "a figure whose caption differs from its words.")


def check_as_stored_by_refresh(stored: Stored) -> Iterator[Fault]:
    """No volatile metadata: byte for byte what `make refresh` writes."""
    clean = normalize(stored.notebook)
    for index, (cell, own) in enumerate(zip(stored.notebook.cells, clean.cells, strict=True)):
        for name in sorted(cell.metadata.keys() - own.metadata.keys()):
            yield stored.fault(index, f"volatile metadata: {name!r}. Run `make refresh`.")
    for name in sorted(stored.notebook.metadata.keys() - clean.metadata.keys()):
        yield Fault(stored.name, 0, "", f"volatile metadata: {name!r}. Run `make refresh`.")
    for name in clean.metadata:
        if stored.notebook.metadata.get(name) != clean.metadata[name]:
            yield Fault(stored.name, 0, "", f"volatile {name!r}. Run `make refresh`.")
    if stored.text != serialize(stored.notebook):
        yield Fault(stored.name, 0, "", "not formatted as stored. Run `make refresh`.")


GATES = (
    check_size,
    check_ids,
    check_executed_in_order,
    check_cell_length,
    check_twins,
    check_no_excuse,
    check_errors,
    check_warnings_and_logs,
    check_nothing_of_this_machine,
    check_figures_have_words,
    check_as_stored_by_refresh,
)


def find_faults(path: Path) -> list[Fault]:
    """Every fault of one stored notebook, in the order of `GATES`."""
    text = path.read_text(encoding="utf-8")
    # The plain reader: `nbformat.read` would mend a missing or doubled id in silence.
    stored = Stored(display_name(path), text, nbformat.reader.reads(text))
    return [fault for gate in GATES for fault in gate(stored)]


def main(arguments: list[str]) -> int:
    """Print every fault of the named notebooks, or of all; 1 if there is any."""
    paths = [Path(a) for a in arguments] or find_notebooks()
    faults = [fault for path in paths for fault in find_faults(path)]
    for fault in faults:
        print(fault)
    print(f"{len(paths)} notebooks, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
