"""Fetches Debian's packages and source of CPython through an apt state of its own; the system's stays as it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LISTS = Path("/etc/apt")
BINARY_PACKAGES = ("dev", "stdlib", "minimal")


@dataclass(frozen=True)
class Sources:
    """What was fetched and unpacked."""

    version: str  # of CPython: 3.11
    release: str  # of Debian's package
    root: Path  # the packages, unpacked as if under /
    tree: Path  # the source with Debian's patches applied


def fetch(version: str, state: Path, scratch: Path) -> Sources:
    """Downloads into `state` (kept) and unpacks into `scratch`; the newest release that has both binaries and source.

    Debian's archive deletes what a point release replaced, and a security update's source may lag its packages.

    Raises:
        SystemExit: no release could be had whole, or this isn't Debian.
    """
    apt = Apt(state)
    try:
        apt.run("update")
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"reading Debian's package lists: {error.stderr.strip()}") from error
    releases = apt.releases(version)
    refused: list[str] = []
    for release in releases:
        try:
            apt.download(version, release)
        except subprocess.CalledProcessError as error:
            print(f"python{version} {release}: not whole in the archive, trying the release before")
            refused.append(error.stderr)
            continue
        return unpack(version, release, apt.downloads, scratch)
    sys.stderr.writelines(refused)
    raise SystemExit(
        f"fetching python{version} from Debian: none of {releases or 'the releases'} has both packages and source\n"
        "hint: this recipe is for Debian 12; elsewhere set STRATA_PYTHON_DISTRIBUTION to a python-build-standalone "
        "archive of format 7"
    )


class Apt:
    """apt-get over lists, caches and downloads of our own, from the sources the system already trusts."""

    def __init__(self, state: Path) -> None:
        self.downloads = state / "downloads"
        for folder in (self.downloads, state / "state/lists/partial", state / "cache/archives/partial"):
            folder.mkdir(parents=True, exist_ok=True)
        parts = state / "sources"
        parts.mkdir(exist_ok=True)
        write_sources(parts)
        settings = {
            "Dir::Etc::sourcelist": "-",
            "Dir::Etc::sourceparts": parts,
            "Dir::State": state / "state",
            "Dir::State::status": "/var/lib/dpkg/status",
            "Dir::Cache": state / "cache",
            "APT::Sandbox::User": "root",
        }
        self.options = [f"--option={key}={value}" for key, value in settings.items()]

    def run(self, *arguments: str) -> str:
        command = [arguments[0] if arguments[0].startswith("apt-") else "apt-get", *self.options]
        command += arguments[1:] if arguments[0].startswith("apt-") else ["--quiet=2", *arguments]
        return subprocess.run(command, check=True, cwd=self.downloads, capture_output=True, text=True).stdout

    def releases(self, version: str) -> list[str]:
        """Newest first, those whose packages and source are both listed."""
        rows = [line.split("|") for line in self.run("apt-cache", "madison", f"libpython{version}-dev").splitlines()]
        binary = [row[1].strip() for row in rows if row[2].strip().endswith("Packages")]
        shown = self.run("apt-cache", "showsrc", "--only-source", f"python{version}")
        source = set(re.findall(r"^Version: (\S+)$", shown, re.M))
        return [release for release in dict.fromkeys(binary) if release in source]

    def download(self, version: str, release: str) -> None:
        if self.whole(version, release):
            return
        self.run("download", *(f"libpython{version}-{part}={release}" for part in BINARY_PACKAGES))
        self.run("source", "--download-only", f"python{version}={release}")

    def whole(self, version: str, release: str) -> bool:
        architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
        names = [f"libpython{version}-{part}_{release}_{architecture}.deb" for part in BINARY_PACKAGES]
        return all((self.downloads / name).exists() for name in [*names, f"python{version}_{release}.debian.tar.xz"])


def write_sources(parts: Path) -> None:
    """The system's entries for this release's `main`, each with its sources beside its packages."""
    facts = dict(re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.M))
    release = facts.get("VERSION_CODENAME", "")
    entries: list[str] = []
    for file in sorted(LISTS.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.M))
            ours = any(suite.startswith(release) for suite in fields.get("Suites", "").split())
            if ours and "main" in fields.get("Components", "").split() and fields.get("Enabled", "yes") != "no":
                fields["Types"] = "deb deb-src"
                entries.append("\n".join(f"{key}: {value}" for key, value in fields.items()))
    lines: list[str] = []
    for file in [LISTS / "sources.list", *sorted(LISTS.glob("sources.list.d/*.list"))]:
        for line in file.read_text().splitlines() if file.exists() else ():
            entry = re.match(r"deb\s+((?:\[[^]]*\]\s+)?\S+\s+(\S+)\s+(.*))", line.strip())
            if entry and entry[2].startswith(release) and "main" in entry[3].split():
                lines += [f"deb {entry[1]}", f"deb-src {entry[1]}"]
    (parts / "debian.sources").write_text("\n\n".join(entries) + "\n")
    (parts / "debian.list").write_text("\n".join(lines) + "\n")


def unpack(version: str, release: str, downloads: Path, scratch: Path) -> Sources:
    """Packages as if under /, the source with the whole of Debian's patch series applied."""
    root = scratch / "root"
    for part in BINARY_PACKAGES:
        package = next(downloads.glob(f"libpython{version}-{part}_{release}_*.deb"))
        subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
    upstream = release.partition("-")[0]
    for archive in (f"python{version}_{upstream}.orig.tar.gz", f"python{version}_{release}.debian.tar.xz"):
        subprocess.run(["tar", "--extract", "--file", downloads / archive, "--directory", scratch], check=True)
    tree = next(scratch.glob("Python-*"))
    series = (scratch / "debian/patches/series").read_text().splitlines()
    for name in (line.split()[0] for line in series if line.strip() and not line.startswith("#")):
        patch = ["patch", "--strip=1", "--batch", "--silent", "--input", os.fspath(scratch / "debian/patches" / name)]
        subprocess.run(patch, cwd=tree, check=True)
    return Sources(version, release, root, tree)
