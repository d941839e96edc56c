"""Debian packages of a list: installs what is missing where that may be done unasked, and otherwise says how.

    python3 scripts/debian.py LIST_FILE

Installed as root, or where CI is set; elsewhere the one apt line is printed and the exit code is 2. Never sudo on a
person's machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NOT_INSTALLED = 2


def wanted(file: Path) -> list[str]:
    """Package names; what follows a # says what for."""
    names = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [name for name in names if name]


def missing(packages: list[str]) -> list[str]:
    """Those that dpkg doesn't know as installed; all of them where there is no dpkg."""
    if not packages or not shutil.which("dpkg-query"):
        return packages
    query = ["dpkg-query", "--show", "--showformat=${binary:Package} ${db:Status-Status}\n", *packages]
    lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    installed = {line.split()[0].partition(":")[0] for line in lines if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def apt_line(packages: list[str]) -> str:
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}"


def install(packages: list[str]) -> bool:
    """True when all are installed now; says what to do, and False, where that is not ours to do."""
    absent = missing(packages)
    if not absent:
        return True
    root = os.geteuid() == 0
    if not root and "CI" not in os.environ:
        print(f"these Debian packages are missing; install them and run this again:\n  {apt_line(absent)}")
        return False
    apt = ["apt-get"] if root else ["sudo", "--non-interactive", "apt-get"]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([*apt, "update", "-qq"], check=True, env=quiet)
    subprocess.run([*apt, "install", "-qq", "--yes", "--no-install-recommends", *absent], check=True, env=quiet)
    return True


if __name__ == "__main__":
    sys.exit(0 if install(wanted(Path(sys.argv[1]))) else NOT_INSTALLED)
