"""The command line as a user meets it: help, documents, errors and exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.node import Node
from harness.process import PATIENCE, wait_until
from harness.states import frozen_state
from harness.trainer import Trainer

Nodes = Callable[..., Node]
Trainers = Callable[..., list[Trainer]]

COMMANDS = {"up", "coordinator", "sidecar", "run", "status", "stacks", "goodput", "datasets", "checkpoints"}
COMMANDS |= {"config", "wheel", "python", "version"}


@pytest.fixture
def idle(make_node: Nodes) -> Node:
    """A node on which nothing runs."""
    return make_node()


def listed(help_text: str) -> list[str]:
    """The commands that a help text lists."""
    section = help_text.partition("\nCommands:\n")[2]
    return [line.split()[0] for line in section.splitlines() if re.match(r"  \S", line)]


def document(text: str) -> dict[str, Any]:
    """Exactly one JSON document of our schema."""
    found: dict[str, Any] = json.loads(text)
    assert found["schema"] == 1
    return found


def fails(node: Node, *arguments: str | Path, code: int, **env: str) -> str:
    """What a command says that must end with `code`: one error with a hint, nothing on standard output."""
    done = node.cli(*arguments, check=False, **env)
    said = done.stdout + done.stderr
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{said}"
    assert done.stdout == "" and done.stderr.startswith("error: ") and "\nhint: " in done.stderr, said
    assert "Traceback" not in said and "panicked" not in said
    return done.stderr


# -- help


def test_help_lists_what_works_and_every_command_explains_itself(idle: Node) -> None:
    top = idle.cli("--help").stdout
    assert set(listed(top)) == COMMANDS
    waiting = [[name] for name in listed(top)]
    while waiting:
        path = waiting.pop()
        text = idle.cli(*path, "--help", COLUMNS="80").stdout
        assert text.startswith(f"Usage: strata {' '.join(path)}"), text
        assert len(text.split("\n\n")[1].strip()) > 20, f"{path} says nothing of itself"
        assert max(map(len, text.splitlines())) <= 80, text
        assert "..." not in text.partition("\nCommands:\n")[2], f"a summary is cut short: {text}"
        waiting += [[*path, name] for name in listed(text)]


def test_mistyped_words_get_a_suggestion(idle: Node) -> None:
    assert "strata status" in fails(idle, "stauts", code=2)
    assert "--port" in fails(idle, "coordinator", "--prot", "1", code=2)
    assert "--private" not in fails(idle, "up", "--privat", "x", code=2)  # not for people
    assert "--slots" not in fails(idle, "up", "--prot", "1", code=2)
    assert "is not a valid whole number" in fails(idle, "checkpoints", "show", "eleven", code=2)
    assert "strata checkpoints show" in fails(idle, "checkpoints", "sohw", code=2)
    assert "strata config check" in fails(idle, "config", "chek", code=2)


def test_colour_is_for_terminals_without_no_color(idle: Node) -> None:
    assert "\x1b" not in idle.cli("nothing", check=False).stderr

    def on_terminal(**env: str) -> str:
        ours, theirs = pty.openpty()
        subprocess.run([idle.exe, "nothing"], env=idle.env | env, stderr=theirs, stdin=theirs, check=False)
        os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            return terminal.read(4096).decode()

    assert "\x1b[" in on_terminal(TERM="xterm")
    assert "\x1b" not in on_terminal(TERM="xterm", NO_COLOR="1")


def test_reader_that_goes_away_is_no_error(idle: Node) -> None:
    whole = subprocess.Popen(
        [idle.exe, "config", "example"], env=idle.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert whole.stdout is not None and whole.stderr is not None
    whole.stdout.close()
    assert whole.stderr.read() == ""
    whole.stderr.close()
    whole.wait(PATIENCE)


# -- version, config


def test_version_says_what_it_works_with(idle: Node) -> None:
    found = document(idle.cli("version", "--json").stdout)
    text = idle.cli("version").stdout
    assert text.startswith(f"strata {found['version']}\n")
    assert found["protocol"] >= 1 and re.fullmatch(r"2\.\d+", found["glibc_floor"])
    for fact in ("works_with", "glibc_floor", "python", "platform"):
        assert found[fact] in text
    assert idle.cli("--version").stdout == f"strata {found['version']}\n"


def test_example_configuration_is_complete_and_fine(idle: Node, tmp_path: Path) -> None:
    example = tmp_path / "config.toml"
    example.write_text(idle.cli("config", "example").stdout)
    assert "fine" in idle.cli("config", "check", "--config", example).stdout
    shown = document(idle.cli("config", "show", "--json").stdout)
    for setting in shown["settings"]:
        assert f"#{setting['key']} = " in example.read_text()
        assert setting["environment"] in example.read_text()


def test_every_value_tells_where_it_comes_from_and_secrets_stay_hidden(idle: Node, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[sidecar]\nslots = 4\n[store]\nsecret_access_key = "hunter2"\n')
    environment = {"STRATA_CONFIG": str(config), "STRATA_KEEP_LAST": "3"}
    shown = document(idle.cli("config", "show", "--json", **environment).stdout)
    by_key = {f"{setting['section']}.{setting['key']}": setting for setting in shown["settings"]}
    assert by_key["checkpoint.keep_last"]["origin"] == "environment STRATA_KEEP_LAST"
    assert by_key["sidecar.slots"]["value"] == "4" and by_key["sidecar.slots"]["origin"] == f"{config}:2"
    assert by_key["log.level"]["origin"] == "default"
    assert "hunter2" not in json.dumps(shown) + idle.cli("config", "show", **environment).stdout


def test_check_says_everything_that_is_wrong(idle: Node, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[sidecar]\nsave_wiat = "2s"\nslots = "many"\n[nonsense]\n')
    done = idle.cli("config", "check", "--config", config, check=False)
    assert done.returncode == 2 and done.stderr.count("error: ") == 3
    told = idle.cli("config", "check", "--config", config, "--json", check=False)
    assert told.returncode == 2 and len(document(told.stdout)["problems"]) == 3
    assert "nowhere.toml" in fails(idle, "config", "check", "--config", "/nowhere.toml", code=3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[sidecar]\nslots = 1\n", "slots"),
        ('[log]\nlevel = "loud"\n', "loud"),
        ("[sidecar]\nmemory_limit = 1\n", "memory_limit"),
        ('[coordinator]\nlease = "0s"\n', "a lease of 0s"),
        ('[coordinator]\nlisten = "0.0.0.0:0"\n', "beyond loopback"),
        ('[coordinator]\nhooks = "/"\n', "it is a directory"),
    ],
)
def test_check_finds_what_a_start_would_refuse(idle: Node, tmp_path: Path, text: str, told: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    done = idle.cli("config", "check", "--config", config, check=False)
    started = idle.cli("up", "--config", config, check=False)
    assert (done.returncode, done.stderr) == (started.returncode, started.stderr) and done.returncode in (2, 8)
    assert told in done.stderr and "hint: " in done.stderr


def test_configuration_that_is_no_text_file_is_invalid(idle: Node, tmp_path: Path) -> None:
    assert "directory" in fails(idle, "config", "check", "--config", tmp_path, code=2)
    config = tmp_path / "config.toml"
    config.write_bytes(b"# \xff\n")
    assert "UTF-8" in fails(idle, "config", "check", "--config", config, code=2)


# -- status


def test_status_names_every_address_that_does_not_answer(idle: Node) -> None:
    said = fails(idle, "status", code=6)
    assert "127.0.0.1:50051" in said and idle.env["STRATA_SOCKET"] in said
    said = fails(idle, "status", "--coordinator", "127.0.0.1:1", code=6)
    assert "127.0.0.1:1" in said and idle.env["STRATA_SOCKET"] not in said


def test_status_shows_ranks_and_steps(node: Node, make_trainers: Trainers) -> None:
    assert document(node.cli("status", "--json").stdout)["jobs"] == []
    assert "strata run" in node.cli("status").stdout
    fails(node, "status", "--job", "unheard-of", code=3)
    [trainer] = make_trainers(node, job="seen")
    trainer.do("connect")
    commit(trainer, 7)
    [job] = document(node.cli("status", "--json", "--job", "seen").stdout)["jobs"]
    assert (job["job"], job["latest_step"], job["ranks"][0]["state"]) == ("seen", 7, "live")
    for width in ("80", "120"):
        text = node.cli("status", COLUMNS=width).stdout
        assert "job seen" in text and "newest whole one 7" in text and "live" in text
        assert max(map(len, text.splitlines())) <= int(width)
    assert max(map(len, node.cli("status").stdout.splitlines())) < 200  # no line is filled where nothing has a width

    assert "training" in node.cli("status").stdout
    through_the_sidecar = document(node.cli("status", "--socket", node.env["STRATA_SOCKET"], "--json").stdout)
    assert [job["job"] for job in through_the_sidecar["jobs"]] == ["seen"]


def test_status_tells_a_rank_that_stands_still_by_the_age_of_its_step(node: Node, make_trainers: Trainers) -> None:
    """From the first step on, saved or not; its process lives, so nothing else would say it."""
    [trainer] = make_trainers(node, job="slow")
    trainer.do("connect")
    trainer.do("call", name="barrier", arguments=["all are there"])

    def rank() -> dict[str, Any]:
        [found] = [job for job in node.status()["jobs"] if job["job"] == "slow"]
        one: dict[str, Any] = found["ranks"][0]
        return one

    def is_at(step: int) -> bool:
        progress = rank()["progress"]
        return bool(progress) and (progress["step"], progress["phase"]) == (step, "training")

    for step in (1, 2):
        assert trainer.do("call", name="reached_preemption", arguments=[step])["value"] is False
        wait_until(lambda step=step: is_at(step), f"step {step}")
    trainer.popen.send_signal(signal.SIGSTOP)
    wait_until(lambda: rank()["progress"]["age_ms"] > 2000, "its step to grow old")
    assert is_at(2) and rank()["state"] == "live"
    trainer.popen.send_signal(signal.SIGCONT)
    trainer.do("call", name="reached_preemption", arguments=[3])
    wait_until(lambda: is_at(3) and rank()["progress"]["age_ms"] < 2000, "the next step")


# -- checkpoints


def commit(trainer: Trainer, step: int, **options: object) -> None:
    trainer.do("save", step=step, rank=trainer.rank, **options)
    trainer.do("wait_committed", step=step)


@pytest.fixture
def job(node: Node, make_trainers: Trainers) -> Node:
    """A node with steps 1, 2 and 3 of job t, its trainer still there."""
    [trainer] = make_trainers(node)
    trainer.do("connect")
    for step in (1, 2, 3):
        commit(trainer, step, metrics={"loss": 1.0 / step})
    return node


def steps(node: Node, *arguments: str) -> list[int]:
    told = document(node.cli("checkpoints", "ls", "--job", "t", "--json", *arguments).stdout)
    return [step["step"] for step in told["steps"]]


def test_steps_are_listed_with_and_without_a_coordinator(job: Node) -> None:
    assert steps(job) == [1, 2, 3]
    text = job.cli("checkpoints", "ls", "--job", "t", COLUMNS="80").stdout
    assert "loss 0.5" in text and max(map(len, text.splitlines())) <= 80
    job.kill("up")
    fails(job, "checkpoints", "ls", "--job", "t", code=6)
    assert steps(job, "--store", job.store) == [1, 2, 3]
    shown = document(job.cli("checkpoints", "show", "2", "--job", "t", "--json").stdout)
    assert shown["metrics"] == {"loss": 0.5} and shown["store"] == job.store
    assert "model.weight" in job.cli("checkpoints", "show", "2", "--job", "t").stdout
    assert {tensor["name"] for tensor in shown["tensors"]} >= {"model.weight", "optimizer.moment"}


def test_show_says_what_changed_and_where_each_byte_lies(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    for step in (1, 2):
        trainer.do("save_frozen", step=step, megabytes=40.0, kind="INCREMENTAL")
        trainer.do("wait_committed", step=step)
    shown = document(node.cli("checkpoints", "show", "2", "--job", "t", "--json").stdout)
    assert shown["before"] == 1
    by_name = {tensor["name"]: tensor for tensor in shown["tensors"]}
    frozen, head = by_name["model.frozen.weight"], by_name["model.head.weight"]
    assert (frozen["changed"], head["changed"]) == (0, head["bytes"])
    expected = {"frozen": frozen_state(2, 40.0)["model"]["frozen"], "head": frozen_state(2, 40.0)["model"]["head"]}
    for name, tensor in (("frozen", frozen), ("head", head)):
        found = b""
        for piece in tensor["pieces"]:
            assert piece["encoding"] == "raw" and piece["at"] == len(found)
            run = piece["stored"]
            with open(Path(node.store) / "t" / run["object"], "rb") as file:
                file.seek(run["offset"])
                found += file.read(run["bytes"])
        assert found == expected[name]["weight"].tobytes(), name
    assert {piece["stored"]["object"].split("/")[1][:20] for piece in frozen["pieces"]} == {f"{1:020}"}
    [raw] = shown["encodings"]
    assert raw["name"] == "raw" and 0 < raw["stored_bytes"] - raw["older_bytes"] < raw["older_bytes"]
    text = node.cli("checkpoints", "show", "2", "--job", "t", COLUMNS="100").stdout
    assert "since step 1" in text and "older steps" in text
    [line] = [line for line in text.splitlines() if "model.frozen.weight" in line]
    assert " no " in line and " raw " in line
    assert max(map(len, text.splitlines())) <= 100


def test_unknown_job_and_step_are_not_found(job: Node) -> None:
    fails(job, "checkpoints", "ls", "--job", "unheard-of", code=3)
    for command in (("show", "99"), ("verify", "99"), ("pin", "99"), ("rm", "99", "--yes")):
        assert "99" in fails(job, "checkpoints", *command, "--job", "t", code=3)


def test_verify_reads_every_step_and_names_the_damaged_one(job: Node) -> None:
    """P2."""
    told = document(job.cli("checkpoints", "verify", "--job", "t", "--json").stdout)
    assert [(step["step"], step["whole"]) for step in told["steps"]] == [(1, True), (2, True), (3, True)]
    pack = next((Path(job.store) / "t" / "data").glob(f"{2:020}.g*/*.pack"))
    content = bytearray(pack.read_bytes())
    content[5000] ^= 1
    pack.write_bytes(content)
    done = job.cli("checkpoints", "verify", "--job", "t", check=False)
    assert done.returncode == 7 and "hint: " in done.stderr
    assert "step 1: whole" in done.stdout and "step 3: whole" in done.stdout
    assert "step 2: damaged" in done.stdout and pack.name in done.stdout


def test_verify_goes_on_after_every_kind_of_damage_and_stays_one_document(job: Node) -> None:
    """P2."""
    store = Path(job.store) / "t"
    os.truncate(next((store / "data").glob(f"{1:020}.g*/*.pack")), 4096)
    next((store / "data").glob(f"{2:020}.g*/*.manifest")).unlink()
    done = job.cli("checkpoints", "verify", "--job", "t", "--json", check=False)
    assert done.returncode == 7, done.stderr
    short, missing, whole = document(done.stdout)["steps"]
    assert not short["whole"] and ".pack" in short["message"] and "4096 bytes" in short["message"]
    assert not missing["whole"] and ".manifest" in missing["message"] and "missing" in missing["message"]
    assert whole["whole"]


def test_verifying_nothing_is_no_success(job: Node) -> None:
    said = fails(job, "checkpoints", "verify", "--job", "mistyped", "--store", job.store, code=3)
    assert "mistyped" in said and job.store in said


def test_removal_can_be_tried_and_needs_a_yes(job: Node) -> None:
    told = document(job.cli("checkpoints", "rm", "1", "2", "--job", "t", "--dry-run", "--json").stdout)
    assert told["dry_run"] and [step["step"] for step in told["steps"]] == [1, 2]
    assert "--yes" in fails(job, "checkpoints", "rm", "1", "--job", "t", code=2)
    assert steps(job) == [1, 2, 3]
    done = document(job.cli("checkpoints", "rm", "1", "2", "--job", "t", "--yes", "--json").stdout)
    assert [step["freed_bytes"] > 0 for step in done["steps"]] == [True, True]
    assert steps(job) == [3] == steps(job, "--store", job.store)


def test_pinned_and_newest_steps_are_refused(job: Node) -> None:
    """P4."""
    job.cli("checkpoints", "pin", "1", "--job", "t")
    assert "pinned" in job.cli("checkpoints", "ls", "--job", "t").stdout
    for refused in (("1",), ("3",), ("2", "3")):
        for how in ("--yes", "--dry-run"):
            fails(job, "checkpoints", "rm", *refused, how, "--job", "t", code=4)
    assert steps(job) == [1, 2, 3]
    job.cli("checkpoints", "rm", "1", "--yes", "--force", "--job", "t")
    job.cli("checkpoints", "rm", "3", "--yes", "--force", "--job", "t")
    assert steps(job) == [2]


def test_steps_of_a_job_that_no_longer_runs_can_be_removed(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    for step in (1, 2):
        commit(trainer, step)
    trainer.do("close")
    assert node.parts["up"].stop() == 0
    node.restart("up")
    assert "not running, 2 steps committed, newest whole one 2" in node.cli("status").stdout
    node.cli("checkpoints", "rm", "1", "--yes", "--job", "t")
    assert steps(node) == [2] == steps(node, "--store", node.store)


# -- roles


def test_up_prints_at_most_six_lines_and_ends_in_good_order(node: Node) -> None:
    lines = [line for line in node.parts["up"].text().splitlines() if " INFO " not in line]
    assert len(lines) <= 6 and lines[0].startswith("strata ") and lines[-1].startswith("next:")
    assert node.parts["up"].stop() == 0
    assert node.endpoint() == {}


def test_wait_ready_times_out_naming_the_socket(idle: Node) -> None:
    assert idle.env["STRATA_SOCKET"] in fails(idle, "sidecar", "--wait-ready", "--timeout", "200ms", code=6)
    fails(idle, "sidecar", "--wait-ready", "--timeout", "soon", code=2)


def test_python_runs_code_and_passes_its_exit_code(idle: Node) -> None:
    assert idle.cli("python", "-c", "import strata, sys; print(strata.__version__, sys.argv[1])", "x").stdout.endswith(
        " x\n"
    )
    assert idle.cli("python", "-c", "raise SystemExit(41)", check=False).returncode == 41


def test_wheel_writes_what_a_trainer_installs(idle: Node, tmp_path: Path) -> None:
    told = document(idle.cli("wheel", tmp_path / "wheels", "--json").stdout)
    names = [Path(path).name for path in told["wheels"]]
    assert [name for name in names if name.startswith("strata_runtime-")] and len(names) > 2
    assert sorted(path.name for path in (tmp_path / "wheels").iterdir()) == sorted(names)
