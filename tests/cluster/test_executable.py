"""The executable by itself: one file, an interpreter inside, nothing asked of the machine but libc; and its wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

STARTUP = Path(__file__).resolve().parents[2] / "embed/startup.txt"
MAX_SIZE = 80e6
RUNS = 60.0  # seconds that any one start may take

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(exe: Path, tmp_path: Path) -> Run:
    """Runs the executable in an empty folder with an empty environment."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(
        *arguments: str | Path, env: dict[str, str] | None = None, input: str = ""
    ) -> subprocess.CompletedProcess[str]:
        command = [exe, *arguments]
        return subprocess.run(
            command, cwd=empty, env=env or {}, input=input, capture_output=True, text=True, timeout=RUNS
        )

    return run


def code(run: Run, source: str, *arguments: str, **options: object) -> str:
    """What `strata python -c` prints; it must end well."""
    done = run("python", "-c", source, *arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def bare_root(exe: Path, tmp_path: Path) -> Path:
    """A root folder that holds the executable and the shared libraries it names, and nothing else."""
    root = tmp_path / "root"
    for line in subprocess.check_output(["ldd", exe], text=True).splitlines():
        if found := re.search(r"(/\S+) \(0x", line):
            place = root / found[1].lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found[1], place)
    shutil.copy(exe, root / "strata")
    return root


def which(name: str) -> str:
    """A program of the system; those for root are in no ordinary PATH."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert found, f"{name} is missing"
    return found


def inside(root: Path, *arguments: str) -> str:
    """What the executable prints that runs with `root` as its whole file system."""
    command = [which("chroot"), root, "/strata", *arguments]
    if os.geteuid() != 0:
        command = [which("unshare"), "--map-root-user", *command]
    done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=RUNS)
    if "unshare" in done.stderr:
        pytest.skip(f"this user may not make a root of its own: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_runs_where_there_is_nothing_but_libc(bare_root: Path) -> None:
    libraries = {file.name for file in bare_root.rglob("*.so*")}
    assert libraries <= {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"}
    assert inside(bare_root, "version").startswith("strata ")
    assert inside(bare_root, "python", "-c", "import json; print(json.dumps([2 ** 10]))") == "[1024]"


def test_certificates_are_found_where_other_distributions_keep_them(bare_root: Path) -> None:
    file = bare_root / "etc/pki/tls/certs/ca-bundle.crt"
    file.parent.mkdir(parents=True)
    file.touch()
    printed = inside(bare_root, "python", "-c", "import ssl; print(ssl.get_default_verify_paths().cafile)")
    assert printed == "/etc/pki/tls/certs/ca-bundle.crt"


def test_version_is_one_json_document(run: Run) -> None:
    document = json.loads(run("version", "--json").stdout)
    assert document["schema"] == 1
    assert document["version"] in run("version").stdout


@pytest.fixture
def release(exe: Path) -> Path:
    """The executable, if it is one to hand out: `scripts/build.py --dev` makes a large one for its own machine."""
    if ".debug_info" in subprocess.check_output(["readelf", "--sections", "--wide", exe], text=True):
        pytest.skip(f"{exe} is a developer's build, with debug information")
    return exe


def test_is_small_enough_to_copy_everywhere(release: Path) -> None:
    assert release.stat().st_size < MAX_SIZE


def test_what_a_start_reads_lies_together(run: Run) -> None:
    """embed/startup.txt names it; a module that is missing there costs a start from the disk a request of its own."""
    source = """
import sys
from strata import _embedded
from strata.cli.main import run
run(["version"])
# The codecs are handed to the interpreter before it has a finder; what else is frozen, CPython itself carries.
ours = [name for name in _embedded.modules() if name in sys.modules
        and (name.startswith("encodings") or isinstance(sys.modules[name].__loader__, _embedded.Finder))]
print(*sorted(ours), sep="\\n")
"""
    listed = STARTUP.read_text().split()
    imported = code(run, source).split("\n")
    assert imported[-len(listed) :] == listed


def test_environment_of_another_python_does_not_matter(run: Run, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    strange = {"PYTHONHOME": "/nowhere", "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "/nowhere", "PYTHONINSPECT": "1"}
    assert code(run, "import json, sys; print(sys.prefix, json.loads('1'))", env=strange).endswith(" 1")
    assert run("version", env=strange).returncode == 0


def test_standard_library_is_whole(run: Run) -> None:
    names = (
        "asyncio bz2 ctypes decimal hashlib lzma multiprocessing sqlite3 ssl uuid zlib zoneinfo xml.etree.ElementTree"
    )
    printed = code(run, f"import importlib\nfor name in {names.split()!r}: importlib.import_module(name)\nprint('all')")
    assert printed == "all"
    assert (
        code(run, "import sqlite3; print(sqlite3.connect(':memory:').execute('select 40 + 2').fetchone()[0])") == "42"
    )
    assert code(run, "import hashlib; print(hashlib.new('sha3_256', b'').hexdigest()[:8])") == "a7ffc6f8"


def test_every_carried_module_compiles_to_what_it_says(run: Run) -> None:
    """Source and bytecode belong together, for all modules."""
    check = """
import importlib.util, sys, types
from strata import _embedded
def names(code):
    return [code.co_name] + [n for c in code.co_consts if isinstance(c, types.CodeType) for n in names(c)]
bad = []
for name in _embedded.modules():
    loader = sys.meta_path[1]
    source = loader.get_source(name)
    if source is not None and names(compile(source, name, "exec", dont_inherit=True)) != names(loader.get_code(name)):
        bad.append(name)
print(bad)
"""
    assert code(run, check) == "[]"


def test_python_takes_a_file_a_module_and_standard_input(run: Run, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 7")
    script = tmp_path / "script.py"
    script.write_text("import sys, beside\nprint(sys.argv, __name__, beside.value)")
    assert run("python", script, "-x", "--help").stdout.strip() == f"{[str(script), '-x', '--help']} __main__ 7"
    assert run("python", "-m", "json.tool", "--compact", input='{"a": 1}').stdout.strip() == '{"a":1}'
    assert run("python", "-", "a", input="import sys; print(sys.argv)").stdout.strip() == "['-', 'a']"
    assert run("python", "--version").stdout.startswith("Python 3.11")


@pytest.mark.parametrize(
    ("source", "expected"),
    [("raise SystemExit(7)", 7), ("exit(3)", 3), ("import os; os.abort()", -signal.SIGABRT), ("1 / 0", 1), ("", 0)],
)
def test_exit_codes_are_those_of_python(run: Run, source: str, expected: int) -> None:
    assert run("python", "-c", source).returncode == expected


def test_a_traceback_shows_the_lines_of_carried_modules(run: Run) -> None:
    done = run("python", "-c", "import json; json.loads('{')")
    assert done.returncode == 1
    assert "JSONDecodeError" in done.stderr
    assert "obj, end = self.scan_once(s, idx)" in done.stderr
    assert "importlib" not in done.stderr


def test_data_files_of_carried_packages_are_found(run: Run) -> None:
    assert (
        code(run, "from importlib.resources import files; print(files('strata').joinpath('py.typed').is_file())")
        == "True"
    )
    assert code(run, "import pkgutil; print(len(pkgutil.get_data('pydoc_data', '_pydoc.css')) > 0)") == "True"
    assert code(run, "import inspect, json; print('def loads' in inspect.getsource(json))") == "True"


def test_the_interpreter_starts_itself_again(run: Run, tmp_path: Path) -> None:
    """subprocess and multiprocessing start sys.executable and expect a Python."""
    started = code(
        run, "import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', 'print(6 * 7)']))"
    )
    assert started == r"b'42\n'"
    script = tmp_path / "pool.py"
    script.write_text(
        "import multiprocessing, os\n"
        "def double(x): return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(2) as pool: print(pool.map(double, [1, 2, 3]))\n"
    )
    done = run("python", script)
    assert done.stdout.strip() == "[2, 4, 6]", done.stderr


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the test's own NumPy is for another Python than the executable's"
)
def test_extension_modules_on_disk_can_be_loaded(run: Run) -> None:
    numpy = pytest.importorskip("numpy")
    folder = str(Path(numpy.__file__).parent.parent)
    printed = code(run, f"import sys; sys.path.append({folder!r}); import numpy; print(numpy.arange(4).sum())")
    assert printed == "6"


def test_extension_modules_find_the_interpreter_and_no_library_inside(exe: Path) -> None:
    """An extension module that comes with an OpenSSL must not be given ours."""
    table = subprocess.check_output(["readelf", "--dyn-syms", "--wide", exe], text=True)
    shown = {fields[7] for line in table.splitlines() if len(fields := line.split()) == 8 and fields[6] != "UND"}
    assert {"PyObject_Call", "PyModule_Create2", "_Py_NoneStruct", "_Py_Dealloc"} <= shown
    assert not [name for name in shown if name.startswith(("SSL_", "EVP_", "sqlite3_", "XML_", "lzma_", "BZ2_"))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_script_as_it_ends_any_process(exe: Path, tmp_path: Path, number: signal.Signals) -> None:
    source = "import time; print('ready', flush=True); time.sleep(600)"
    process = subprocess.Popen([exe, "python", "-c", source], env={}, cwd=tmp_path, stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, talk = process.communicate(timeout=RUNS)
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in talk) == (number == signal.SIGINT)


def test_ctrl_c_ends_a_command_quietly_however_early_it_comes(exe: Path, tmp_path: Path) -> None:
    """Before main it is the system's own end, which a shell shows as 130 too."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = [exe, "status", "--coordinator", f"http://127.0.0.1:{silent.getsockname()[1]}"]
        for milliseconds in range(0, 60, 3):
            process = subprocess.Popen(command, env={}, cwd=tmp_path, stdout=-1, stderr=-1, text=True)
            time.sleep(milliseconds / 1000)
            process.send_signal(signal.SIGINT)
            _, talk = process.communicate(timeout=RUNS)
            assert process.returncode in (130, -signal.SIGINT), (milliseconds, talk)
            assert talk in ("", "\nerror: interrupted\n"), (milliseconds, talk)


def test_ctrl_c_outside_the_parser_is_said_in_the_same_words(exe: Path, tmp_path: Path) -> None:
    source = "from strata.cli import failures; raise SystemExit(failures.tell(KeyboardInterrupt()))"
    done = subprocess.run([exe, "python", "-c", source], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "\nerror: interrupted\n")


def test_ctrl_c_in_a_callback_ends_the_command_as_well(exe: Path, tmp_path: Path) -> None:
    """An import's own weakref callbacks are such: CPython can't raise out of them, and goes on."""
    source = """
        import importlib, sys, weakref
        main = importlib.import_module("strata.cli.main")
        def interrupt(_): raise KeyboardInterrupt
        class Gone: pass
        kept = Gone()
        watch = weakref.ref(kept, interrupt)
        def command(*_, **__):
            global kept
            del kept
            print("went on")
        main.commands.main = command
        sys.exit(main.run(["status"]))
    """
    done = subprocess.run([exe, "python", "-c", textwrap.dedent(source)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nerror: interrupted\n")


def test_a_closed_pipe_is_no_crash(exe: Path, tmp_path: Path) -> None:
    shown = subprocess.run(["bash", "-c", '"$0" --help | head -c 1', exe], cwd=tmp_path, capture_output=True, text=True)
    assert "Traceback" not in shown.stderr
    assert "panicked" not in shown.stderr


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    done = run("chekpoints")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("release")
def test_wheel_is_for_any_python_from_3_11_and_an_older_glibc(wheels: Path) -> None:
    names = sorted(file.name for file in wheels.iterdir())
    ours = [name for name in names if name.startswith("strata_runtime-")]
    assert len(ours) == 1
    assert "-cp311-abi3-" in ours[0]
    assert "manylinux_2_28_x86_64" in ours[0]
    others = {name.partition("-")[0] for name in names if name not in ours}
    assert others == {"click", "rich", "markdown_it_py", "mdurl", "pygments"}


@pytest.fixture(scope="module")
def clean(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that holds the wheel, installed without network, and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    # -I: what PYTHONPATH shows to the tests themselves is not in it.
    pip = [python, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*pip, "--find-links", wheels, "strata-runtime"], check=True)
    return python


def test_installed_wheel_imports_without_any_framework(clean: Path) -> None:
    source = "import sys, strata; print(sorted({'torch', 'numpy', 'jax', 'grpc', 'rich', 'click'} & set(sys.modules)))"
    assert subprocess.check_output([clean, "-I", "-c", source], text=True).strip() == "[]"
    assert not (clean.parent / "strata").exists(), "a script of this name would hide the executable"


def test_installed_wheel_saves_and_restores(clean: Path, tmp_path: Path) -> None:
    """By a private sidecar: killed after the commit, restored by the next process."""
    env = {
        "PATH": "/usr/bin:/bin",
        "STRATA_HOME": str(tmp_path / "home"),
        "STRATA_ARENA_DIR": f"/dev/shm/strata-clean-{os.getpid()}-{time.monotonic_ns()}",
        "STRATA_SOCKET": str(tmp_path / "s.sock"),
    }
    save = (
        "import os, signal, strata\n"
        "with strata.connect(local=True) as job:\n"
        "    job.save(3, {'name': 'x', 'big': 2 ** 100, 'raw': b'\\0\\1' * 5000}).wait_committed()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    restore = (
        "import strata\n"
        "with strata.connect(local=True) as job:\n"
        "    found = job.restore()\n"
        "    assert found.state == {'name': 'x', 'big': 2 ** 100, 'raw': b'\\0\\1' * 5000}, found.state\n"
        "    print(found.step)\n"
    )
    try:
        saved = subprocess.run([clean, "-c", save], env=env, capture_output=True, text=True, timeout=RUNS)
        assert saved.returncode == -signal.SIGKILL, saved.stderr
        restored = subprocess.run([clean, "-c", restore], env=env, capture_output=True, text=True, timeout=RUNS)
        assert restored.stdout.strip() == "3", restored.stderr
    finally:
        shutil.rmtree(env["STRATA_ARENA_DIR"], ignore_errors=True)
