"""`run_tpu.sh` in a folder of its own, with substitutes for make, gcloud and other commands."""

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
    # A pod slice whose only host is the folder $HOST.
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
# Exits with the next of the exit codes in `codes`; for "wait", on a signal.
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


class Workstation:
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
        """The lines of standard output, and standard error."""
        process = self.start(*arguments, **environment)
        out, stderr = process.communicate(timeout=20)
        assert process.returncode == code, stderr
        return out.splitlines(), stderr

    def codes(self, *codes: object, at: Path | None = None) -> None:
        at = at or self.folder
        at.mkdir(exist_ok=True)
        (at / "codes").write_text("".join(f"{code}\n" for code in codes))

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def workstation(tmp_path: Path) -> Workstation:
    return Workstation(tmp_path)


def until_exists(path: Path) -> None:
    until = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.01)


def test_a_dry_run_on_virtual_devices_prints_two_commands_and_does_nothing(
    workstation: Workstation,
) -> None:
    before = sorted(workstation.folder.iterdir())
    printed, stderr = workstation.run(
        "--dry-run", "--local", "8", "sft", "builtin", "--steps", "20"
    )
    assert printed == [
        f"+ make install PYTHON={sys.executable}",
        f"+ {VIRTUAL} .venv/bin/sf-jax train sft builtin --steps 20",
    ]
    assert not stderr and sorted(workstation.folder.iterdir()) == before


def test_a_dry_run_on_a_tpu_vm_installs_tpu_support_and_looks_for_tpus(
    workstation: Workstation,
) -> None:
    for name in ("gcloud", "curl"):
        (workstation.commands / name).unlink()
    printed, stderr = workstation.run("--dry-run")
    assert "'.[tpu]'" in printed[1] and 'jax.default_backend() == "tpu"' in printed[2]
    assert "distributed" not in printed[2]
    assert printed[3:] == ["+ .venv/bin/sf-jax train builtin_model"]
    assert not stderr


def test_a_dry_run_on_a_slice_prints_what_each_host_does_too(workstation: Workstation) -> None:
    (workstation.commands / "gcloud").unlink()
    printed, _ = workstation.run(
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
    assert "-o ro" in mount and mount.endswith(f" b {workstation.environment['HOME']}/gcs/b")
    assert any("jax.distributed.initialize()" in line for line in printed)
    assert printed[-1].endswith("gcs/b/my faces' --distributed")
    assert not (workstation.folder / "runs").exists()


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
def test_bad_options_are_reported_in_a_line(
    workstation: Workstation, arguments: list[str], reason: str
) -> None:
    printed, stderr = workstation.run(*arguments, code=2)
    assert not printed and stderr.startswith(f"run_tpu.sh: {reason}") and stderr.count("\n") == 1


def test_help_shows_how_to_begin(workstation: Workstation) -> None:
    printed, _ = workstation.run("--help")
    assert any("--local 8 sft builtin --steps 20" in line for line in printed)


def test_data_and_models_that_are_not_there_are_refused_before_anything_is_installed(
    workstation: Workstation, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for option, wanted in {"--data": "*.array_record", "--model": "config.json"}.items():
        _, stderr = workstation.run(
            "--local", "8", "sft", "builtin", f"{option}={tmp_path}/empty", code=2
        )
        assert f"{option} {tmp_path}/empty: contains no {wanted}" in stderr
    assert not (workstation.folder / "made").exists()


def test_a_bucket_that_cannot_be_mounted_is_refused_with_the_commands_to_go_on(
    workstation: Workstation,
) -> None:
    command = ("--local", "8", "sft", "builtin", "--data", "gs://b/faces")
    _, stderr = workstation.run(*command, code=2)
    assert "gcloud storage rsync --recursive gs://b/faces DIR" in stderr
    assert "gcsfuse -o ro" in stderr and "--cache-dir" in stderr
    workstation.add("gcsfuse", "echo no such bucket >&2; exit 1")
    _, stderr = workstation.run(*command, code=2)
    assert stderr.endswith("run_tpu.sh: gs://b/faces: cannot be mounted: see above\n")


def test_a_bucket_is_mounted_once_and_its_local_path_is_trained_from(
    workstation: Workstation,
) -> None:
    workstation.add(
        "gcsfuse",
        'echo "$@" >> mounts; for at; do :; done; mkdir -p "$at/faces" "$at/qwen"\n'
        'touch "$at/faces/a.array_record" "$at/qwen/config.json"',
    )
    workstation.run(
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
    at = f"{workstation.environment['HOME']}/gcs/b"
    assert workstation.calls() == [
        f"train sft builtin --data {at}/faces --held-out {at}/faces --model {at}/qwen"
    ]
    assert (workstation.folder / "mounts").read_text().count("\n") == 1


def test_crashes_are_retried_and_bad_input_is_not(workstation: Workstation) -> None:
    workstation.codes(1, 134, 0)
    _, stderr = workstation.run("--local", "8", "--retries", "5", "sft", "builtin")
    assert len(workstation.calls()) == 3 and "exit code 134; restarting" in stderr
    workstation.codes(1, 1, 1)
    workstation.run("--local", "8", "--retries", "1", "sft", "builtin", code=1)
    assert len(workstation.calls()) == 3 + 2
    workstation.codes(2, 0)
    workstation.run("--local", "8", "--retries", "5", "sft", "builtin", code=2)
    assert len(workstation.calls()) == 3 + 2 + 1


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_run_which_saves(
    workstation: Workstation, sent: signal.Signals
) -> None:
    workstation.codes("wait", 0)
    process = workstation.start("--local", "8", "--retries", "5", "sft", "builtin")
    until_exists(workstation.folder / "started")
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 143 and len(workstation.calls()) == 1
    assert stderr.splitlines()[-2] == "saved"
    assert "interrupted; the same command resumes from the newest checkpoint" in stderr


def test_one_host_of_several_reports_what_is_missing(workstation: Workstation) -> None:
    _, stderr = workstation.run("sft", "4b-full", PEERS="a,b,c", code=2)
    assert "this is one of 3 hosts; --name and --zone" in stderr
    (workstation.folder / "runs").mkdir()
    _, stderr = workstation.run("--detached", PEERS="a,b", code=2)
    assert "builtin_model runs on one host only" in stderr
    _, stderr = workstation.run("--detached", "sft", "4b-full", PEERS="a,b", code=2)
    assert "2 hosts need --out gs://" in stderr


def test_on_a_slice_the_run_outlives_the_connection_and_is_followed_again(
    workstation: Workstation,
) -> None:
    there, at = workstation.host / "sf_jax", f"{workstation.environment['HOME']}/gcs/b"
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
    workstation.codes("wait", at=there)
    workstation.add(
        "gcsfuse", 'ls /proc/$$/fd > held; for at; do :; done; touch "$at/a.array_record"'
    )
    first = workstation.start(*command, PEERS="a,b")
    until_exists(there / "started")
    first.kill()
    (workstation.folder / "newer").touch()  # code newer than the run
    second = workstation.start(*command, PEERS="a,b")
    assert second.stderr is not None
    while "a run is in progress here" not in second.stderr.readline():
        assert second.poll() is None
    second.send_signal(signal.SIGTERM)
    out, stderr = second.communicate(timeout=20)
    assert second.returncode == 143 and "exit code 143" in stderr
    assert "started" in out and "saved" in out
    calls = (there / "calls").read_text()
    assert calls == f"train sft builtin --out gs://b/it's --data {at} --distributed\n"
    assert not (there / "newer").exists()
    assert "9" not in (there / "held").read_text().split()  # the lock of a finished run
    first.communicate()


def test_a_slice_that_cannot_be_reached_ends_the_script_at_once(workstation: Workstation) -> None:
    workstation.add("gcloud", "exit 7")
    printed, stderr = workstation.run("--name", "pod", "--zone", "z", "sft", "builtin", code=7)
    assert " scp " in printed[-1] and "exit code 7" in stderr
