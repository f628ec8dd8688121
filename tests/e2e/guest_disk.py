# SPDX-License-Identifier: Apache-2.0
"""Disks to boot: copies of the Debian guest with other files, unified kernel images, keys and signatures of a test's own."""

import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import tempfile

import harness

STUB = pathlib.Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")


def run(*command):
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def unified_image(output, sections):
    """Puts sections behind those of systemd-stub, each on a page of its own, as ukify does."""
    listed = subprocess.run(["objdump", "-h", STUB], check=True, capture_output=True, text=True).stdout
    ends = [int(size, 16) + int(address, 16) for size, address in re.findall(r"^ +\d+ \S+ +(\w+) +(\w+)", listed, re.M)]
    address, arguments = max(ends), []
    for name, file in sections.items():
        address = (address + 0xFFF) & ~0xFFF
        arguments += ["--add-section", f"{name}={file}", "--change-section-vma", f"{name}={address:#x}"]
        address += file.stat().st_size
    run("objcopy", *arguments, STUB, output)


class Disk:
    """A copy of the guest's disk, to be changed."""

    def __init__(self, folder, name, source=None):
        self.path = pathlib.Path(folder) / f"{name}.raw"
        shutil.copyfile(source or harness.GUEST, self.path)

    def take(self, file):
        local = self.path.with_suffix("." + pathlib.PurePath(file).name)
        run("mcopy", "-n", "-o", "-i", f"{self.path}{harness.ESP}", f"::{file}", local)
        return local

    def put(self, local, file):
        run("mcopy", "-o", "-i", f"{self.path}{harness.ESP}", local, f"::{file}")

    def put_text(self, text, file):
        local = self.path.with_suffix(".text")
        local.write_text(text)
        self.put(local, file)

    def unified(self, command_line):
        """The guest's kernel and initramfs as one unified kernel image, not signed."""
        options = self.path.with_suffix(".cmdline")
        options.write_text(command_line)
        image = self.path.with_suffix(".efi")
        unified_image(image, {".cmdline": options, ".initrd": self.take("/initrd.img"), ".linux": self.take("/vmlinuz")})
        return image


class Keys:
    """A platform key, a key exchange key and a signing key with self-signed certificates, as an operator would make them."""

    def __init__(self, folder, name="own"):
        self.folder = pathlib.Path(folder)
        for role in ("PK", "KEK", "db"):
            run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "30", "-subj",
                f"/CN={name} {role}", "-keyout", self.key(role), "-out", self.certificate(role))

    def key(self, role):
        return self.folder / f"{role}.key"

    def certificate(self, role):
        return self.folder / f"{role}.pem"

    def sign(self, program):
        """The program with a signature of the db key."""
        signed = program.with_suffix(".signed")
        run("sbsign", "--key", self.key("db"), "--cert", self.certificate("db"), "--output", signed, program)
        return signed


@contextlib.contextmanager
def changing_disk_of(deployment, name, host="host1"):
    """The disk of a stopped instance as a raw file, to be changed; written back to its overlay at the end."""
    folder = deployment.instance_dir(name, host)
    overlay = folder / "root.qcow2"
    image = deployment.get("image", deployment.get("instance", name)["spec"]["image"])["status"]
    base = deployment.dir / host / "blobs/sha256" / image["sha256"]
    base_format = "qcow2" if image["detectedFormat"] == "qcow2" else "raw"
    before = overlay.stat()
    with tempfile.TemporaryDirectory(dir=deployment.dir) as scratch:
        disk = Disk.__new__(Disk)
        disk.path = pathlib.Path(scratch) / "disk.raw"
        source = {"driver": "qcow2", "file": {"driver": "file", "filename": str(overlay)},
                  "backing": {"driver": base_format, "file": {"driver": "file", "filename": str(base)}}}
        run("qemu-img", "convert", "-O", "raw", "json:" + json.dumps(source), disk.path)
        yield disk
        changed = pathlib.Path(scratch) / "changed.qcow2"
        run("qemu-img", "convert", "-S", "0", "-f", "raw", "-O", "qcow2", disk.path, changed)
        overlay.write_bytes(changed.read_bytes())  # owner and mode stay
        assert overlay.stat().st_uid == before.st_uid
