"""The pages of every command and of the Python interface, docs/reference/: only the site has them, and git does not."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

from typer import Context
from typer.cli import get_docs_for_click
from typer.main import get_command

import fundus_seg
from fundus_seg_cli.main import app

REFERENCE = Path(__file__).parent / "reference"
PACKAGE = Path(fundus_seg.__file__).parent
API = """# {0}

```{{eval-rst}}
.. automodule:: {0}
   :members:
```
"""


def pages() -> dict[Path, str]:
    """Every page by its path below docs/reference/: `commands/NAME.md` and `api/PACKAGE.md`."""
    return {Path("commands", f"{name}.md"): text for name, text in _commands().items()} | {
        Path("api", f"{name}.md"): API.format(name) for name in public_packages()
    }


def write() -> None:
    """Write the pages; those of a former build are removed."""
    shutil.rmtree(REFERENCE, ignore_errors=True)
    for path, text in pages().items():
        (REFERENCE / path).parent.mkdir(parents=True, exist_ok=True)
        (REFERENCE / path).write_text(text, "utf8")


def public_packages() -> list[str]:
    """The packages whose `__init__` says what they offer, by name."""
    stubs = (_stub(path) for path in sorted(PACKAGE.rglob("__init__.py")))
    return [".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in stubs if _says_all(path)]


def _stub(init: Path) -> Path:
    """The file that lists the names: `__init__.pyi` where names are imported lazily."""
    return stub if (stub := init.with_suffix(".pyi")).exists() else init


def _says_all(path: Path) -> bool:
    statements = [each for each in ast.parse(path.read_text("utf8")).body if isinstance(each, ast.Assign)]
    return any(
        isinstance(target, ast.Name) and target.id == "__all__" for each in statements for target in each.targets
    )


def _commands() -> dict[str, str]:
    """The help of every command, in Markdown."""
    group = get_command(app)
    context = Context(group, info_name="fundus-seg")
    return {
        name: get_docs_for_click(obj=command, ctx=context, name=name, call_prefix="fundus-seg")
        for name, command in group.commands.items()
    }
