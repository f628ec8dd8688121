#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Figures of a whole deployment, each beside a reference measured in the same run.

- start of an instance that ran before, and first start, from the REST request to QMP `running`, against the same swtpm and
  QEMU command lines run by hand;
- idle memory of controller and agent;
- REST reads at 1,000 requests/s from two clients.
"""

import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/e2e"))
import harness  # noqa: E402

BENCH = harness.BIN.parent / "bench"
ROUNDS = 7


def report(name, value, unit, target, reference=None):
    line = f"{name}: {value:.1f} {unit} (target {target})"
    if reference is not None:
        line += f", by hand {reference:.1f} {unit}, ratio {value / reference:.2f}"
    print(line, flush=True)


class Events:
    """Server-sent events of one instance, read with curl so that nothing of ours is on the measuring side."""

    def __init__(self, deployment, name):
        token = (deployment.dir / "controller/admin.token").read_text().strip()
        listed = json.loads(deployment.vallum("instance", "list", "-o", "json"))
        config = f'header = "Authorization: Bearer {token}"\n'
        self.curl = subprocess.Popen(
            ["curl", "-sN", "--cacert", deployment.dir / "controller/ca.pem", "--config", "-",
             f"https://127.0.0.1:{deployment.port}/v1/instances?watch={listed.get('revision', 0)}"
             f"&fields=metadata.name={name}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.curl.stdin.write(config)
        self.curl.stdin.close()

    def wait_phase(self, phase):
        for line in self.curl.stdout:
            if line.startswith("data: ") and json.loads(line[6:]).get("status", {}).get("phase") == phase:
                return time.monotonic()
        raise RuntimeError("the event stream ended")

    def close(self):
        self.curl.kill()
        self.curl.wait()


def post(deployment, path, body=None):
    """POSTs over a connection that is open already, as a client library would."""
    token = (deployment.dir / "controller/admin.token").read_text().strip()
    import http.client
    import ssl

    context = ssl.create_default_context(cafile=str(deployment.dir / "controller/ca.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", deployment.port, context=context)
    connection.connect()
    start = time.monotonic()
    connection.request("POST", path, body=json.dumps(body) if body else None,
                       headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 202:
        raise RuntimeError(f"{path}: HTTP {answer.status}")
    return start


def starts(deployment, name, rounds=ROUNDS):
    """Milliseconds from request to running: [first start, later starts...]."""
    body = {"metadata": {"name": name},
            "spec": {"image": "debian12", "flavor": "tiny", "boot": {"type": "BOOT_TYPE_UEFI", "mode": "BOOT_MODE_SECURE"}}}
    out = []
    for round_number in range(rounds + 1):
        events = Events(deployment, name)
        time.sleep(0.3)  # the stream is open before the clock starts
        if round_number == 0:
            begin = post(deployment, "/v1/instances", body)
        else:
            begin = post(deployment, f"/v1/instances/{name}/start")
        out.append((events.wait_phase("INSTANCE_RUNNING") - begin) * 1000)
        events.close()
        if round_number == 0:
            command = pathlib.Path(f"/proc/{deployment.qemu_pid(name)}/cmdline").read_bytes().split(b"\0")[:-1]
        deployment.vallum("instance", "stop", name, "--force", "--wait")
    return out, [word.decode() for word in command]


def by_hand(command, rounds):
    """Milliseconds to start swtpm and the same machine from a shell's point of view, until QMP says running."""
    times = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            folder = pathlib.Path(folder)
            shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.ms.fd", folder / "vars.fd")
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(harness.GUEST), "-F", "raw",
                            str(folder / "disk.qcow2")], check=True)
            (folder / "tpm").mkdir()
            begin = time.monotonic()
            tpm = subprocess.Popen(["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}/tpm", "--ctrl",
                                    f"type=unixio,path={folder}/tpm.sock", "--terminate"], stderr=subprocess.DEVNULL)
            while not (folder / "tpm.sock").exists():
                time.sleep(0.001)
            qemu = subprocess.Popen(
                [command[0], "-nodefaults", "-no-user-config", "-display", "none", "-S", "-m", "512", "-accel",
                 "tcg,thread=multi", "-cpu", "max", "-machine", "q35,smm=on",
                 "-global", "driver=cfi.pflash01,property=secure,value=on",
                 "-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.ms.fd",
                 "-drive", f"if=pflash,format=raw,file={folder}/vars.fd",
                 "-drive", f"if=none,id=d,format=qcow2,file={folder}/disk.qcow2", "-device", "virtio-blk-pci,drive=d",
                 "-chardev", f"socket,id=t,path={folder}/tpm.sock", "-tpmdev", "emulator,id=tpm,chardev=t",
                 "-device", "tpm-crb,tpmdev=tpm", "-qmp", f"unix:{folder}/qmp.sock,server=on,wait=off"])
            connection = socket.socket(socket.AF_UNIX)
            while True:
                try:
                    connection.connect(f"{folder}/qmp.sock")
                    break
                except OSError:
                    time.sleep(0.001)
            stream = connection.makefile("rw")
            stream.readline()
            for name in ("qmp_capabilities", "cont"):
                stream.write(json.dumps({"execute": name}) + "\n")
                stream.flush()
                while "return" not in json.loads(stream.readline()):
                    pass
            times.append((time.monotonic() - begin) * 1000)
            qemu.kill()
            qemu.wait()
            tpm.kill()
            tpm.wait()
    return statistics.median(times)


def resident_mib(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) / 1024


def rest_reads(deployment):
    arguments = [str(BENCH / "rest_load"), f"https://127.0.0.1:{deployment.port}", str(deployment.dir / "controller/ca.pem"),
                 str(deployment.dir / "controller/admin.token"), "/v1/flavors/tiny", "500", "10"]
    clients = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [json.loads(client.communicate()[0]) for client in clients]
    for number, result in enumerate(results):
        print(f"REST read, client {number + 1}: {result['per_second']} requests/s, p50 {result['p50_ms']} ms, "
              f"p99 {result['p99_ms']} ms (target p99 <= 5 ms), max {result['max_ms']} ms")


def main():
    with harness.Deployment() as deployment:
        deployment.add_agent()
        time.sleep(2)
        report("idle memory, controller", resident_mib(deployment.controller.process.pid), "MiB", "<= 40 MiB")
        report("idle memory, agent", resident_mib(deployment.agents["host1"].process.pid), "MiB", "<= 25 MiB")
        rest_reads(deployment)
        deployment.import_guest()
        times, command = starts(deployment, "bench1")
        reference = by_hand(command, ROUNDS)
        report("first start on a host that has yet to get the image (70 MiB)", times[0], "ms", "none", reference)
        fresh = [starts(deployment, f"fresh{number}", rounds=0)[0][0] for number in range(3)]
        report("first start (median)", statistics.median(fresh), "ms", "<= 150 ms", reference)
        report("later start (median)", statistics.median(times[1:]), "ms", "<= 75 ms and ratio <= 1.5", reference)
        report("idle memory after the runs, controller", resident_mib(deployment.controller.process.pid), "MiB", "<= 40 MiB")
        report("idle memory after the runs, agent", resident_mib(deployment.agents["host1"].process.pid), "MiB", "<= 25 MiB")


if __name__ == "__main__":
    if os.environ.get("VALLUM_BIN_DIR") is None and not harness.BIN.exists():
        sys.exit("build the release preset first")
    main()
