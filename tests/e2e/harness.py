# SPDX-License-Identifier: Apache-2.0
"""A whole deployment in a folder of its own: controller, agents, and the command line to use them."""

import contextlib
import datetime
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

SOURCE = pathlib.Path(os.environ.get("VALLUM_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
BIN = pathlib.Path(os.environ.get("VALLUM_BIN_DIR", SOURCE / "build/release/bin"))
GUEST = SOURCE / "build/guest/debian.raw"
ESP = "@@1048576"  # where the guest disk's EFI system partition begins

# TCG boots Debian in 12 to 25 s on an idle machine; nothing here asserts how long it takes.
BOOT_TIMEOUT = 150


def free_ports(count):
    """As many ports, no two the same."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def two_free_ports():
    """A port such that the next one is free as well: where the kernel gives odd ones, clients have the even ones."""
    while True:
        (port,) = free_ports(1)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port + 1))
            return port


def is_qemu(pid):
    """Whether a process is (still) a QEMU."""
    with contextlib.suppress(OSError):
        return b"qemu-system" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    return False


def processes_naming(folder):
    """The pid of every other process that has this folder on its command line."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # one that has ended meanwhile
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def guest_with_changed_byte(path, esp_file, marker):
    """Copies the guest disk and flips one bit in one file of its ESP, at the marker."""
    shutil.copyfile(GUEST, path)
    loader = path.with_suffix(".efi")
    subprocess.run(["mcopy", "-n", "-i", f"{path}{ESP}", f"::{esp_file}", loader], check=True)
    content = bytearray(loader.read_bytes())
    at = content.find(marker)
    assert at > 0, f"{marker!r} is not in {esp_file}"
    content[at] ^= 1
    loader.write_bytes(content)
    subprocess.run(["mcopy", "-o", "-i", f"{path}{ESP}", loader, f"::{esp_file}"], check=True)


class CommandFailed(Exception):
    """A vallum command that did not exit with 0: .code, .stderr."""

    def __init__(self, arguments, code, stdout, stderr):
        super().__init__(f"vallum {' '.join(arguments)}: exit {code}\n{stdout}{stderr}")
        self.code, self.stdout, self.stderr = code, stdout, stderr


class Daemon:
    """One of our daemons, with its log in a file."""

    def __init__(self, name, arguments, log):
        self.arguments, self.log = [str(BIN / name), *map(str, arguments)], log
        self.process = None
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
                raise


class Deployment:
    """Controller and agents of one test; context manager."""

    def __init__(self, controller_options=()):
        self.controller_options = controller_options
        # Guests run as users of their own, so every folder above theirs must let them through.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="vallum-e2e-", dir="/var/tmp"))
        self.dir.chmod(0o711)
        self.port, self.agent_port = free_ports(2)
        self.environment = dict(os.environ, VALLUM_CONFIG_DIR=str(self.dir / "cli"), HOME=str(self.dir))
        self.agents = {}
        self.controller = None

    def __enter__(self):
        try:
            self.start_controller()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.print_logs()
        self.close()

    def start_controller(self):
        self.controller = Daemon(
            "vallum-controller",
            [
                "--state-dir", self.dir / "controller",
                "--listen", f"127.0.0.1:{self.port}",
                "--agent-listen", f"127.0.0.1:{self.agent_port}",
                *self.controller_options,
            ],
            self.dir / "controller.log",
        )
        token = self.dir / "controller/admin.token"
        self.until(lambda: token.exists() and token.stat().st_size > 0, "the controller wrote its admin token")
        self.vallum(
            "context", "add", "test", "--server", f"https://127.0.0.1:{self.port}",
            "--ca", str(self.dir / "controller/ca.pem"), "--token-file", str(token),
        )
        self.vallum("context", "use", "test")
        self.until(lambda: self.try_vallum("pool", "list")[0] == 0, "the controller answers")

    def add_agent(self, name="host1", options=(), wait=True, pool="default"):
        token = self.dir / f"{name}.join"
        self.vallum("token", "create", f"join-{name}", "--role", "join", "--pool", pool, "--out", str(token))
        self.agents[name] = Daemon(
            "vallum-agent",
            [
                "--state-dir", self.dir / name, "--run-dir", self.dir / f"r-{name}",
                "--name", name, "--join-token-file", token, *options,
            ],
            self.dir / f"{name}.log",
        )
        if wait:
            self.until(lambda: self.get("host", name)["status"]["state"] == "HOST_UP", f"{name} is up", 60)

    def try_vallum(self, *arguments, timeout=BOOT_TIMEOUT):
        done = subprocess.run(
            [str(BIN / "vallum"), *arguments], env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def vallum(self, *arguments, timeout=BOOT_TIMEOUT):
        code, out, err = self.try_vallum(*arguments, timeout=timeout)
        if code != 0:
            raise CommandFailed(arguments, code, out, err)
        return out

    def get(self, kind, name):
        return json.loads(self.vallum(kind, "show", name, "-o", "json"))

    def until(self, condition, what, seconds=90):
        """Waits for a condition; a command that fails meanwhile counts as "not yet"."""
        deadline = time.monotonic() + seconds
        pause = 0.1
        while time.monotonic() < deadline:
            with contextlib.suppress(CommandFailed, KeyError):
                if condition():
                    return
            time.sleep(pause)
            # A guest that boots needs the processor that a question costs.
            pause = min(pause * 1.2, 0.5)
        self.print_logs()
        raise AssertionError(f"not within {seconds} s: {what}")

    def restart_controller(self, hosts, seconds=60):
        """Kills and starts the controller; waits until each host has a verdict that is newer. Returns every state that
        was seen of them meanwhile."""
        self.controller.kill()
        restart = datetime.datetime.now(datetime.UTC)
        self.controller.start()
        self.until(lambda: self.try_vallum("pool", "list")[0] == 0, "the controller answers")
        seen = set()

        def judged(name):
            status = self.get("host", name)["status"]
            seen.add((name, status["state"]))
            return datetime.datetime.fromisoformat(status["trust"]["verifyTime"]) > restart

        # Each of them is looked at each time, judged or not.
        self.until(lambda: all([judged(name) for name in hosts]), f"{hosts} were judged anew", seconds)
        return seen

    def import_guest(self, name="debian12", disk=GUEST, properties=()):
        options = [word for p in properties for word in ("--property", p)]
        self.vallum("image", "import", str(disk), "--name", name, "--disk-format", "gpt", *options, "--wait")

    def create(self, name, *options, image="debian12", flavor="tiny"):
        self.vallum(
            "instance", "create", name, "--image", image, "--flavor", flavor, *options, "--wait", timeout=BOOT_TIMEOUT
        )

    def wait_verdict(self, name):
        """Waits until the boot of an instance has a verdict and returns its `measured`."""
        self.try_vallum("instance", "wait", name, "--for", "boot-verdict", "--timeout", str(BOOT_TIMEOUT),
                        timeout=BOOT_TIMEOUT + 10)
        return self.get("instance", name)["status"]["boot"]["measured"]

    def instance_dir(self, name, host="host1"):
        return self.dir / host / "instances" / self.get("instance", name)["metadata"]["uid"]

    def serial(self, name, host="host1"):
        """What the guest wrote to its serial port so far, without terminal escapes' bytes mattering."""
        log = self.instance_dir(name, host) / "serial.log"
        return log.read_bytes().decode("utf-8", "replace").replace("\r", "").replace("\0", "") if log.exists() else ""

    def wait_serial(self, name, text, seconds=BOOT_TIMEOUT):
        self.until(lambda: text in self.serial(name), f"{name} wrote {text!r} to its serial port", seconds)
        return self.serial(name)

    def qemu_pid(self, name):
        """The pid of the QEMU process of an instance, found by its uid on the command line."""
        uid = self.get("instance", name)["metadata"]["uid"]
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if b"qemu-system" in words[0] and any(uid.encode() in word for word in words):
                    return int(path.parent.name)
        return None

    def print_logs(self):
        for log in sorted(self.dir.glob("*.log")):
            print(f"---- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]), flush=True)

    def close(self):
        for daemon in [*self.agents.values(), self.controller]:
            if daemon and daemon.process.poll() is None:
                daemon.kill()
        for pid in processes_naming(self.dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)


class EndToEndTest(unittest.TestCase):
    """One deployment with one host and the Debian image, for all tests of a class."""

    controller_options = ()

    @classmethod
    def setUpClass(cls):
        if not GUEST.exists():
            raise unittest.SkipTest(f"{GUEST} is missing: run scripts/make-debian-guest")
        cls.deployment = Deployment(cls.controller_options)
        cls.addClassCleanup(cls.deployment.close)
        cls.deployment.__enter__()
        cls.set_up_deployment(cls.deployment)

    @classmethod
    def set_up_deployment(cls, deployment):
        deployment.add_agent()
        deployment.import_guest()

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            self.deployment.print_logs()

    def assert_refused(self, code, *arguments):
        """Runs a vallum command that must fail with this exit code; returns its stderr."""
        actual, out, err = self.deployment.try_vallum(*arguments)
        self.assertEqual(actual, code, f"vallum {' '.join(arguments)}\n{out}{err}")
        return err
