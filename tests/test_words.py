"""Docstrings and messages use plain words: no docstring begins with a fragment, no message has a word of the banned list."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "im2im_zoo"
# Files that packages ship are trusted byte for byte, so their words stay.
SHIPPED = ("instances/methods", "processing/custom")

OPENINGS = re.compile(r"(What|Of|That of|Those of|Whether what|How|Where|Which|Who)\b")
WORDS = re.compile(
    r"\b(heeds?|heeding|anew|do(es)? not suffice|suffices|(go|goes|going|gone) on with|(is|are) (told|said)|a person|"
    r"say so|says? (one|so)|(?<!there )is no (image|zip|array|size|folder|file)|passes? over)\b"
)
# Calls whose strings are read by users: errors, warnings, output, and help texts of options and recipe keys.
_SHOWN = re.compile(r"(warn|echo|secho|print|print_\w+|Option|Argument|Field|BadParameter)$")


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and text of each docstring, those behind attributes included."""
    for node in ast.walk(tree):
        body = getattr(node, "body", [])
        for statement in (
            body if isinstance(body, list) else []
        ):  # that of a lambda or a conditional is no list
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.lineno, value.value


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and text of each string in an error, a warning, an output or a help text."""
    for node in ast.walk(tree):
        shown: ast.AST | None = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            shown = node if _SHOWN.match(name) or name.endswith("Error") else shown
        for inner in ast.walk(shown) if shown is not None else ():
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                yield inner.lineno, inner.value


def fragments(tree: ast.Module) -> list[str]:
    """Docstrings that begin with a fragment instead of a verb or a noun."""
    found = sorted(set(docstrings(tree)))
    return [f"line {line}: {text.split(chr(10))[0]}" for line, text in found if OPENINGS.match(text)]


def banned_words(tree: ast.Module) -> list[str]:
    """Messages with a banned word."""
    return [f"line {line}: {text}" for line, text in sorted(set(messages(tree))) if WORDS.search(text)]


def files() -> list[Path]:
    shipped = [PACKAGE / folder for folder in SHIPPED]
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent not in shipped]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_file_has_fragments_or_banned_words(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert fragments(tree) == []
    assert banned_words(tree) == []


def test_fragments_and_banned_words_are_found() -> None:
    tree = ast.parse(
        '"""What is checked."""\n'
        "def f():\n"
        '    """Of an image."""\n'
        "    raise ValueError(f'{1} does not suffice', 'begin anew')\n"
        "x: int\n"
        '"""Those of a file."""\n'
        "warn('it is said')\n"
        "help = Option(help='does not heed it')\n"
    )
    assert [line.split(":")[0] for line in fragments(tree)] == ["line 1", "line 3", "line 6"]
    assert len(banned_words(tree)) == 4
