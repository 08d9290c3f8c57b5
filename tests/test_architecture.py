"""The house: which room may import which, what is never imported, and what is used of other libraries."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest
from support.paths import ROOT

# From the bottom: a room imports only from rooms of a lower number. `tasks` stands below `results`.
FLOORS = {
    **dict.fromkeys(("errors", "files", "inputs", "pages"), 0),
    "tasks": 1,
    "results": 2,
    **dict.fromkeys(("demo", "runtime"), 3),
    **dict.fromkeys(("data", "leaderboard", "compare"), 4),
    "models": 5,
    "evaluation": 6,
    **dict.fromkeys(("training", "report"), 7),
    "cli": 8,
    "__main__": 9,
}

# Private names of libraries: corrections of fidelity and nothing else, each with its reason and its test.
# LLaVA-NeXT's padding: transformers 5 pads an odd remainder otherwise than the models were trained with; held by
# tests/models/backbones (the golden crops) and described in docs/fidelity.md.
FIDELITY_CORRECTIONS = {("mmeb.models.backbones.llava_next", "_get_padding_size")}


def _modules() -> dict[str, ast.Module]:
    paths = sorted((ROOT / "mmeb").rglob("*.py"))
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, paths, strict=True)}


MODULES = _modules()


def _imports(tree: ast.Module) -> set[str]:
    """The modules of the package that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mmeb":
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found


def _room(module: str) -> str:
    return module.split(".")[1]


def test_no_arrow_points_up() -> None:
    arrows = [
        f"{module} -> {imported}"
        for module, tree in MODULES.items()
        for imported in _imports(tree)
        if "." in module and "." in imported and _room(module) != _room(imported)
        if FLOORS[_room(imported)] > FLOORS[_room(module)]
        or (FLOORS[_room(imported)] == FLOORS[_room(module)] > 0)  # rooms side by side know nothing of one another
    ]
    assert not arrows


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {module: _imports(tree) - {module} for module, tree in MODULES.items() if module != "mmeb"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_what_reads_results_and_tasks_imports_no_torch() -> None:
    light = [name for name in MODULES if name.split(".")[1:2] in (["tasks"], ["results"], ["compare"], ["leaderboard"])]
    code = f"import sys, importlib; [importlib.import_module(name) for name in {light}]; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT) == "False\n"


def test_the_private_names_of_libraries_are_those_that_fidelity_needs() -> None:
    nodes = [(module, node) for module, tree in MODULES.items() for node in ast.walk(tree)]
    ours = {name for _, node in nodes if _defines(node) for name in _names(node)}
    named = {name for _, node in nodes if not isinstance(node, ast.FunctionDef) for name in _names(node)}
    used = set()
    for module, node in nodes:
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in ours:
            used.add((module, node.attr))
        elif isinstance(node, ast.FunctionDef) and _is_private(node.name) and node.name not in named:
            used.add((module, node.name))  # nobody here calls it: it overrides a library's
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("mmeb"):
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            used |= {(module, part) for part in parts if _is_private(part)}
    assert used == FIDELITY_CORRECTIONS


def _names(node: ast.AST) -> set[str]:
    """The names that a node itself has or uses."""
    values = (getattr(node, field, None) for field in ("name", "attr", "id"))
    return {value for value in values if isinstance(value, str)}


def _defines(node: ast.AST) -> bool:
    is_set = isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store)
    return is_set or isinstance(node, ast.FunctionDef | ast.ClassDef)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_error_is_recognised_by_its_message() -> None:
    """Nothing is looked for in `str(error)`, by `in`, a string's method or a regular expression."""
    found = []
    for module, tree in MODULES.items():
        caught = {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name}
        for node in ast.walk(tree):
            text = ast.unparse(node) if isinstance(node, ast.Compare | ast.Call) else ""
            asks = isinstance(node, ast.Compare) and any(isinstance(each, ast.In | ast.NotIn) for each in node.ops)
            asks |= text.startswith(("re.search(", "re.match(", "re.fullmatch("))
            asks |= any(
                f"str({name}).{method}(" in text for name in caught for method in ("startswith", "endswith", "find")
            )
            if asks and any(f"str({name})" in text for name in caught):
                found.append(f"{module}: {text}")
    assert not found
