"""What a reader may rely on: imports point downward, nothing heavy is loaded unasked."""

import ast
import subprocess
import sys
import time
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import virnucpro
from virnucpro.cli import program

PACKAGE = Path(virnucpro.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# What may know what: a room imports from lower floors only, and from itself.
FLOORS = {
    10: {"__main__"},
    9: {"cli"},
    8: {"run", "train"},
    7: {"report", "measure"},
    6: {"results"},
    5: {"bundle"},
    4: {"classifiers"},
    3: {"encoders"},
    2: {"blocks"},
    1: {"reads", "frames", "tokens", "devices", "storage"},
    0: {"chunks", "calls", "records", "progress", "errors"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms} | {"__init__": -1}
MOST_FOLDERS, MOST_FILES = 13, 12
# The package gives its main function when it is asked for.
UPWARD_WHEN_CALLED = {("__init__", "run")}

NETWORK = {"socket", "ssl", "http", "urllib", "ftplib", "requests", "httpx", "huggingface_hub"}
NETWORK |= {"dask", "distributed"}
# The doors to the network: downloads, and workers of the user's.
NETWORKED = {"bundle.fetch", "run.cluster", "run.dask_runner", "run.dask_worker"}
# What torch raises; nothing can be unpickled with it.
HARMLESS = {"pickle.UnpicklingError"}
UNSAFE = {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib"}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def for_types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(tree: ast.AST, lazy: bool = False):
    """(what is imported, whether only when a function is called), without those for types."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in HARMLESS:
                    continue
                inside = node.module == "virnucpro" and alias.name in FLOOR
                yield (whole if inside else str(node.module)), lazy
        elif not (isinstance(node, ast.stmt) and for_types_only(node)):
            yield from imports(
                node, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            )


def own(name: str) -> str | None:
    """The module of ours that an import names, without the package's name."""
    return name.removeprefix("virnucpro.") if name.startswith("virnucpro.") else None


def test_every_room_has_its_floor():
    assert {module_of(path).split(".")[0] for path in SOURCES} == {*FLOOR}
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert sum(path.is_dir() for path in entries) <= MOST_FOLDERS
    assert sum(path.is_file() for path in entries) <= MOST_FILES


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_point_downward(path):
    importer = module_of(path).split(".")[0]
    for name, lazy in imports(parsed(path)):
        target = own(name)
        if target is None or (imported := target.split(".")[0]) == importer:
            continue
        if (importer, imported) in UPWARD_WHEN_CALLED:
            assert lazy, f"{importer} imports {imported} before it is asked to"
        else:
            assert FLOOR[imported] < FLOOR[importer], f"{importer} imports {imported}"


def test_the_exceptions_are_needed():
    found = {
        (module_of(path).split(".")[0], target.split(".")[0])
        for path in SOURCES
        for name, lazy in imports(parsed(path))
        if lazy and (target := own(name))
    }
    assert found >= UPWARD_WHEN_CALLED


def test_no_module_imports_itself_in_a_circle():
    modules = {module_of(path) for path in SOURCES}
    graph = {
        module_of(path): {
            target
            for name, lazy in imports(parsed(path))
            if not lazy and (target := own(name)) in modules and target != module_of(path)
        }
        for path in SOURCES
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_nothing_unsafe_and_no_network(path):
    forbidden = UNSAFE if module_of(path) in NETWORKED else NETWORK | UNSAFE
    for name, _ in imports(parsed(path)):
        assert name.split(".")[0] not in forbidden
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    named = {ast.unparse(call.func) for call in calls}
    assert not named & {"print", "eval", "exec", "__import__"}
    for call in calls:
        if ast.unparse(call.func) == "torch.load":
            arguments = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert arguments.get("weights_only") == "True"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_nothing_is_swallowed(path):
    """TRAP N2: `except Exception` and a bare except hide bugs; BaseException may be passed on."""
    for node in ast.walk(parsed(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = "BaseException" if node.type is None else ast.unparse(node.type)
        words = {word.strip() for word in caught.strip("()").split(",")}
        assert "Exception" not in words
        if "BaseException" in words:
            last = node.body[-1]
            assert isinstance(last, ast.Raise)
            assert last.exc is None


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_every_module_says_what_it_is(path):
    if path.stat().st_size:
        assert ast.get_docstring(parsed(path))


# What is loaded


def test_tolerances_are_used_and_each_has_its_reason():
    """TRAP N7: they stand in one place, so that none is loosened without a word."""
    folder = Path(__file__).parent
    path = folder / "support" / "tolerances.py"
    lines = path.read_text("utf-8").splitlines()
    tests = "".join(other.read_text("utf-8") for other in folder.rglob("test_*.py"))
    last = 0
    for node in parsed(path).body:
        if isinstance(node, ast.Assign):
            (target,) = node.targets
            assert isinstance(target, ast.Name)
            above = lines[node.lineno - 2]
            assert above.startswith("# ") or node.lineno == last + 1, target.id
            assert f"tolerances.{target.id}" in tests, target.id
            last = node.end_lineno or 0


def modules_after(code: str) -> set[str]:
    """Top-level modules that are loaded after some code ran in a fresh interpreter."""
    program = (
        f"import sys\n{code}\nsys.stderr.write(' '.join({{m.split('.')[0] for m in sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stderr.rsplit("\n", 1)[-1].split())


def running(*arguments: str) -> str:
    return (
        f"sys.argv = ['virnucpro', *{list(arguments)!r}]\n"
        "from virnucpro.cli import main\n"
        "try: main()\n"
        "except SystemExit as done: assert not done.code, done.code\n"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import virnucpro",
        "import virnucpro.cli",
        running("--help"),
        running("--version"),
        "".join(running(command, "--help") for command in program.commands),
    ],
    ids=["import", "import cli", "help", "version", "help of each command"],
)
def test_help_and_import_load_neither_torch_nor_numpy(code):
    loaded = modules_after(code)
    assert "virnucpro" in loaded
    assert not loaded & {"torch", "numpy", "tokenizers", "safetensors", "pysam"}


def test_a_kmer_bundle_needs_no_torch(tmp_path):
    from command import dna, fasta, made_bundle

    bundle = made_bundle(tmp_path / "km").path
    (tmp_path / "in.fa").write_bytes(fasta([("a", dna(900))]))
    for command in (
        ("predict", str(tmp_path / "in.fa"), "-o", str(tmp_path / "run"), "--bundle", str(bundle)),
        ("validate", str(tmp_path / "in.fa"), "--bundle", str(bundle)),
        ("bundles", "show", str(bundle)),
    ):
        loaded = modules_after(running(*command))
        assert "numpy" in loaded or command[0] == "bundles"
        assert not loaded & {"torch", "tokenizers"}
    assert (tmp_path / "run" / "calls.tsv").exists()
    assert "torch" not in modules_after("import virnucpro.train.calibrate")


def test_help_is_quick():
    """Under 0.5 s on a quiet laptop; the bound leaves room for a busy, slow one."""
    spent = []
    for _ in range(3):
        clock = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "virnucpro", "--help"], capture_output=True, check=True
        )
        spent.append(time.perf_counter() - clock)
    assert min(spent) < 2.0
