"""Draw the map of the package from its imports, into docs/architecture.md.

python tools/architecture.py           write the map anew
python tools/architecture.py --check   exit code 1 where the map is not that of the imports
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- map: python tools/architecture.py -->", "<!-- end of the map -->"
HEADING = "| level | rooms | import, of the levels below |\n|---|---|---|"

Imports = dict[str, set[str]]


def module_imports(package: Path) -> Imports:
    """Return which modules of a package each of its modules imports, wherever in it; by dotted names."""
    files = {
        ".".join((package.name, *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in package.rglob("*.py")
    }
    found: Imports = {}
    for module, path in files.items():
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                named = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= named & files.keys() or {node.module or ""}
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
        found[module] = (imported & files.keys()) - {module}
    return found


def rooms(modules: Imports) -> Imports:
    """Return the same by rooms: the packages and single modules right below the top."""
    found: Imports = {}
    for module, imported in modules.items():
        if "." in module:
            room = module.split(".")[1]
            others = {name.split(".")[1] for name in imported if "." in name} - {room}
            found.setdefault(room, set()).update(others)
    return found


def levels(imports: Imports) -> dict[str, int]:
    """Return how far above the ground each one stands: one more than the highest that it imports.

    Raises:
        ValueError: some import each other in a circle; it names them.
    """
    found: dict[str, int] = {}

    def visit(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ValueError(f"a circle of imports: {' -> '.join((*above[above.index(name) :], name))}")
        if name not in found:
            found[name] = 1 + max((visit(other, (*above, name)) for other in sorted(imports[name])), default=-1)
        return found[name]

    for name in sorted(imports):
        visit(name, ())
    return found


def drawn(imports: Imports) -> str:
    """Return the map: a table of levels, and a diagram without the arrows that follow from others."""
    level = levels(imports)
    rows = [HEADING]
    for height in sorted({*level.values()}, reverse=True):
        names = sorted(name for name in imports if level[name] == height)
        for name in names:
            below = ", ".join(sorted(imports[name], key=lambda other: (-level[other], other)))
            rows.append(f"| {height} | `{name}` | {below} |")
    lines = ["```mermaid", "flowchart TD"]
    for name in sorted(imports, key=lambda name: (-level[name], name)):
        reached = {far for near in imports[name] for far in _reached(imports, near)}
        lines += [f"    {name} --> {other}" for other in sorted(imports[name] - reached)]
    return "\n".join([*rows, "", *lines, "```"])


def _reached(imports: Imports, name: str) -> set[str]:
    return imports[name] | {far for near in imports[name] for far in _reached(imports, near)}


def with_map(page: str, drawing: str) -> str:
    """Return the page with the drawing between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{drawing}\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Write or check the map and return the exit code."""
    page = PAGE.read_text(encoding="utf-8")
    new = with_map(page, drawn(rooms(module_imports(ROOT / "src" / "hangtag"))))
    if "--check" in sys.argv[1:]:
        if new != page:
            print("docs/architecture.md is not the map of today's imports: python tools/architecture.py")
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
