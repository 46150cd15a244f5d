"""`run_tpu.sh` in a folder of its own, among commands that stand for make, gcloud and others."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "run_tpu.sh"
VIRTUAL = "env JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=8"

SHIMS = {
    # As a slice whose only host lies in $HOST.
    "gcloud": """
        case " $* " in
          *" scp "*) cp runs/code.tar.gz "$HOST" ;;
          *) cd "$HOST"; for last; do :; done; bash -c "${last#--command=}" ;;
        esac""",
    "curl": '[ -n "${PEERS:-}" ] && echo "$PEERS"',
    "make": 'echo "$@" >> made; mkdir -p .venv/bin; cp "$TRAINER" .venv/bin/sf-jax\n'
    "cp /bin/true .venv/bin/python",
    "mountpoint": "exit 1",
    "sleep": "exit 0",
}
# Ends with the next of the exit codes in `codes`; with "wait" there, when it is told to stop.
TRAINER = """#!/bin/bash
    echo "$*" >> calls
    code=$(head -n 1 codes 2> /dev/null || echo 0)
    sed -i 1d codes 2> /dev/null
    if [ "$code" = wait ]; then
      trap 'echo saved >&2; exit 143' TERM
      echo started >&2; touch started
      for i in {1..500}; do /bin/sleep 0.02; done
    fi
    exit "$code"
"""


def _default_signals() -> None:
    """A shell cannot trap what it was started to ignore, as `nohup` has its children do."""
    for caught in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(caught, signal.SIG_DFL)


class Desk:
    """The script's folder, with its own commands before the system's."""

    def __init__(self, folder: Path):
        self.folder, self.commands, self.host = folder / "code", folder / "bin", folder / "host"
        for made in (self.folder, self.commands, self.host):
            made.mkdir()
        shutil.copy(SCRIPT, self.folder)
        for name, text in SHIMS.items():
            self.add(name, text)
        trainer = folder / "trainer"
        trainer.write_text(TRAINER)
        trainer.chmod(0o755)
        self.environment = {
            "PATH": f"{self.commands}:/usr/bin:/bin", "HOME": str(folder), "HOST": str(self.host),
            "TRAINER": str(trainer), "PYTHON": sys.executable,
        }  # fmt: skip

    def add(self, name: str, text: str) -> None:
        path = self.commands / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [self.folder / "run_tpu.sh", *arguments],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_default_signals,
        )

    def run(self, *arguments: str, code: int = 0, **environment: str) -> tuple[list[str], str]:
        """The lines it printed, and what it said on standard error."""
        process = self.start(*arguments, **environment)
        out, said = process.communicate(timeout=20)
        assert process.returncode == code, said
        return out.splitlines(), said

    def codes(self, *codes: object, at: Path | None = None) -> None:
        at = at or self.folder
        at.mkdir(exist_ok=True)
        (at / "codes").write_text("".join(f"{code}\n" for code in codes))

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def until_exists(path: Path) -> None:
    until = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.01)


def test_a_dry_run_on_virtual_devices_prints_two_commands_and_does_nothing(desk: Desk) -> None:
    before = sorted(desk.folder.iterdir())
    printed, said = desk.run("--dry-run", "--local", "8", "sft", "builtin", "--steps", "20")
    assert printed == [
        f"+ make install PYTHON={sys.executable}",
        f"+ {VIRTUAL} .venv/bin/sf-jax train sft builtin --steps 20",
    ]
    assert not said and sorted(desk.folder.iterdir()) == before


def test_a_dry_run_on_a_tpu_vm_installs_tpu_support_and_looks_for_tpus(desk: Desk) -> None:
    for name in ("gcloud", "curl"):
        (desk.commands / name).unlink()
    printed, said = desk.run("--dry-run")
    assert "'.[tpu]'" in printed[1] and 'jax.default_backend() == "tpu"' in printed[2]
    assert "distributed" not in printed[2]
    assert printed[3:] == ["+ .venv/bin/sf-jax train builtin_model"]
    assert not said


def test_a_dry_run_on_a_slice_prints_what_each_host_does_too(desk: Desk) -> None:
    (desk.commands / "gcloud").unlink()
    printed, _ = desk.run(
        "--dry-run",
        "--name",
        "pod",
        "--zone",
        "z",
        "--project",
        "p",
        "--retries",
        "3",
        "sft",
        "4b-full",
        "--out",
        "gs://b/run",
        "--data",
        "gs://b/my faces",
    )
    where = "pod --zone=z --worker=all --project=p"
    scp, ssh = printed[2:4]
    assert scp == f"+ gcloud compute tpus tpu-vm scp runs/code.tar.gz {where.replace(' ', ': ', 1)}"
    assert ssh.startswith(f"+ gcloud compute tpus tpu-vm ssh {where} ")
    assert "sf_jax/run_tpu.sh --on-host --retries 3 sft 4b-full" in ssh
    mount = next(line for line in printed if line.startswith("+ gcsfuse"))
    assert "-o ro" in mount and mount.endswith(f" b {desk.environment['HOME']}/gcs/b")
    assert any("jax.distributed.initialize()" in line for line in printed)
    assert printed[-1].endswith("gcs/b/my faces' --distributed")
    assert not (desk.folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--lokal", "8"], "there is no option --lokal (see --help)"),
        (["--local"], "--local needs a value"),
        (["--local", "eight"], "--local eight: expected a whole number"),
        (["--name", "pod"], "--name needs --zone"),
        (["--name", "pod", "--zone", "z", "--local", "2"], "--name does not go with --local"),
    ],
)
def test_bad_options_are_told_in_a_line(desk: Desk, arguments: list[str], reason: str) -> None:
    printed, said = desk.run(*arguments, code=2)
    assert not printed and said.startswith(f"run_tpu.sh: {reason}") and said.count("\n") == 1


def test_help_says_how_to_begin(desk: Desk) -> None:
    printed, _ = desk.run("--help")
    assert any("--local 8 sft builtin --steps 20" in line for line in printed)


def test_data_and_models_that_are_not_there_are_refused_before_anything_is_installed(
    desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for option, wanted in {"--data": "*.array_record", "--model": "config.json"}.items():
        _, said = desk.run("--local", "8", "sft", "builtin", f"{option}={tmp_path}/empty", code=2)
        assert f"{option} {tmp_path}/empty: holds no {wanted}" in said
    assert not (desk.folder / "made").exists()


def test_a_bucket_that_cannot_be_mounted_is_refused_with_the_commands_to_go_on(desk: Desk) -> None:
    command = ("--local", "8", "sft", "builtin", "--data", "gs://b/faces")
    _, said = desk.run(*command, code=2)
    assert "gcloud storage rsync --recursive gs://b/faces DIR" in said
    assert "gcsfuse -o ro" in said and "--cache-dir" in said
    desk.add("gcsfuse", "echo no such bucket >&2; exit 1")
    _, said = desk.run(*command, code=2)
    assert said.endswith("run_tpu.sh: gs://b/faces: cannot be mounted: see above\n")


def test_a_bucket_is_mounted_once_and_its_local_path_is_trained_from(desk: Desk) -> None:
    desk.add(
        "gcsfuse",
        'echo "$@" >> mounts; for at; do :; done; mkdir -p "$at/faces" "$at/qwen"\n'
        'touch "$at/faces/a.array_record" "$at/qwen/config.json"',
    )
    desk.run(
        "--local",
        "8",
        "sft",
        "builtin",
        "--data",
        "gs://b/faces",
        "--held-out=gs://b/faces",
        "--model",
        "gs://b/qwen",
    )
    at = f"{desk.environment['HOME']}/gcs/b"
    assert desk.calls() == [
        f"train sft builtin --data {at}/faces --held-out {at}/faces --model {at}/qwen"
    ]
    assert (desk.folder / "mounts").read_text().count("\n") == 1


def test_crashes_are_retried_and_bad_input_is_not(desk: Desk) -> None:
    desk.codes(1, 134, 0)
    _, said = desk.run("--local", "8", "--retries", "5", "sft", "builtin")
    assert len(desk.calls()) == 3 and "exit code 134; starting again" in said
    desk.codes(1, 1, 1)
    desk.run("--local", "8", "--retries", "1", "sft", "builtin", code=1)
    assert len(desk.calls()) == 3 + 2
    desk.codes(2, 0)
    desk.run("--local", "8", "--retries", "5", "sft", "builtin", code=2)
    assert len(desk.calls()) == 3 + 2 + 1


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_run_which_saves(desk: Desk, sent: signal.Signals) -> None:
    desk.codes("wait", 0)
    process = desk.start("--local", "8", "--retries", "5", "sft", "builtin")
    until_exists(desk.folder / "started")
    process.send_signal(sent)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 143 and len(desk.calls()) == 1
    assert said.splitlines()[-2] == "saved"
    assert "told to stop; the same command goes on from the newest checkpoint" in said


def test_one_host_of_several_names_what_it_lacks(desk: Desk) -> None:
    _, said = desk.run("sft", "4b-full", PEERS="a,b,c", code=2)
    assert "this is one of 3 hosts; --name and --zone" in said
    (desk.folder / "runs").mkdir()
    _, said = desk.run("--detached", PEERS="a,b", code=2)
    assert "builtin_model runs on one host only" in said
    _, said = desk.run("--detached", "sft", "4b-full", PEERS="a,b", code=2)
    assert "2 hosts need --out gs://" in said


def test_on_a_slice_the_run_outlives_the_connection_and_is_followed_again(desk: Desk) -> None:
    there, at = desk.host / "sf_jax", f"{desk.environment['HOME']}/gcs/b"
    command = (
        "--name",
        "pod",
        "--zone",
        "z",
        "sft",
        "builtin",
        "--out",
        "gs://b/it's",
        "--data",
        "gs://b",
    )
    desk.codes("wait", at=there)
    desk.add("gcsfuse", 'ls /proc/$$/fd > held; for at; do :; done; touch "$at/a.array_record"')
    first = desk.start(*command, PEERS="a,b")
    until_exists(there / "started")
    first.kill()
    (desk.folder / "newer").touch()  # code that the run has not seen
    second = desk.start(*command, PEERS="a,b")
    assert second.stderr is not None
    while "a run is going on here" not in second.stderr.readline():
        assert second.poll() is None
    second.send_signal(signal.SIGTERM)
    out, said = second.communicate(timeout=20)
    assert second.returncode == 143 and "exit code 143" in said
    assert "started" in out and "saved" in out
    calls = (there / "calls").read_text()
    assert calls == f"train sft builtin --out gs://b/it's --data {at} --distributed\n"
    assert not (there / "newer").exists()
    assert "9" not in (there / "held").read_text().split()  # the lock of a run that is over
    first.communicate()


def test_a_slice_that_cannot_be_reached_ends_the_script_at_once(desk: Desk) -> None:
    desk.add("gcloud", "exit 7")
    printed, said = desk.run("--name", "pod", "--zone", "z", "sft", "builtin", code=7)
    assert " scp " in printed[-1] and "exit code 7" in said
