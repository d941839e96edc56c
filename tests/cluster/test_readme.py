"""The README's program does what the README says of it, as printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parent.parent.parent / "README.md"


def test_program_in_the_readme_is_killed_and_goes_on_where_it_was(python: Path, site: Path, tmp_path: Path) -> None:
    """P1, P3: a killed run's newest acknowledged step is what the next run starts from."""
    program = tmp_path / "first.py"
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 1, "the README holds one program"
    program.write_text(blocks[0])
    with tempfile.TemporaryDirectory(prefix="strata-t-", dir="/dev/shm") as arenas:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": arenas,  # sockets: short, and of this test alone
            "STRATA_HOME": str(tmp_path / "home"),
            "STRATA_ARENA_DIR": f"{arenas}/arenas",
            "PYTHONPATH": str(site),
        }

        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run([python, program], env=env, capture_output=True, text=True, timeout=120, check=False)

        killed, resumed = run(), run()
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert killed.stdout == "" or killed.stdout.startswith("starting after step 0 with w[0] = 0.0"), killed.stdout
        assert resumed.returncode == 0, resumed.stderr
        assert resumed.stdout == "starting after step 5 with w[0] = 15.0\nends with w[0] = 55.0\n"
