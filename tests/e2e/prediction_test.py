#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What was predicted from disk and variable store alone is what the vTPM then recorded, event by event."""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import harness

PREDICTED = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14}
STUB = pathlib.Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
EXIT_SUCCEEDED = "b54f7542cbd872a81a9d9dea839b2b8d747c7ebd5ea6615c40f42f44a6dbeba0"

# Everything of GRUB's scripts that a prediction follows.
GRUB_CONFIG = r"""# a comment
set default=1
set timeout=1
set mykernel="/vmlinuz"
search --no-floppy --fs-uuid --set=root 5A11-0001
insmod part_gpt
insmod nosuchmodule
if [ -e /EFI/debian/nothing -o "$default" = "1" ]; then
  echo "taking   the 'second' entry"; set x='a b'
elif [ -n "$mykernel" ]; then
  set x=no
fi
if [ ! -f /vmlinuz ]; then
  set y=1
elif [ -d /EFI/BOOT -a "$x" != "a b" ]; then
  set y=2
else
  set y=3 # the third
fi
export x
menuentry 'First' --class a --id one { linux /none }
menuentry "Second $default" --class debian --class gnu --unrestricted {
  # a comment with a } brace
  insmod gzio
  set root='hd0,gpt1'
  linux   $mykernel console=ttyS0,115200   panic=-1 "quiet"  y=${y}y
  initrd /initrd.img
}
"""


def run(*command):
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


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


def platform_of(pid):
    """What a prediction needs to know of a machine, from the command line of its QEMU."""
    words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    after = {words[i]: words[i + 1] for i in range(len(words) - 1)}
    code = next(json.loads(word)["filename"] for word in words if '"firmware-code-file"' in word)
    cpu = "tcg"
    if after["-accel"].startswith("kvm"):
        info = pathlib.Path("/proc/cpuinfo").read_text()
        cpu = re.search(r"vendor_id\s*: (\S+)", info).group(1) + ":" + re.search(r"(\d+) bits physical", info).group(1)
    return [
        "--firmware", code, "--cpu", cpu, "--memory", re.search(r"size=(\w+)", after["-m"]).group(1),
        "--vcpus", re.search(r"cpus=(\d+)", after["-smp"]).group(1),
    ]  # fmt: skip


class Disk:
    """A copy of the guest's disk, to be changed."""

    def __init__(self, folder, name):
        self.path = pathlib.Path(folder) / f"{name}.raw"
        shutil.copyfile(harness.GUEST, self.path)

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


class PredictionTest(harness.EndToEndTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name

    def predict_and_boot(self, name, disk, *options, network="user", flavor="tiny"):
        """Boots a disk and compares every PCR that a prediction names. Returns what the events are, in words."""
        d = self.deployment
        d.import_guest(name, disk)
        d.create(name, "--network", network, *options, image=name, flavor=flavor)
        folder = d.instance_dir(name)
        # The store as it is before the boot, while the firmware has not written to it yet.
        variables = pathlib.Path(self.folder) / f"{name}.vars.fd"
        shutil.copyfile(folder / "vars.fd", variables)
        self.assertNotIn("BootOrder".encode("utf-16-le"), variables.read_bytes(), "copied too late")
        platform = platform_of(d.qemu_pid(name))
        record = folder / "tpm/record"
        d.until(lambda: record.exists() and EXIT_SUCCEEDED in record.read_text(), "the loader left the firmware",
                harness.BOOT_TIMEOUT)
        d.vallum("instance", "stop", name, "--force", "--wait")
        # Fails when a PCR differs.
        predicted = json.loads(d.vallum("image", "predict", str(disk), "--variables", str(variables), "--record", str(record),
                                        *platform, "-o", "json"))
        agreement = {each["pcr"]: each["measured"] for each in predicted["pcrs"]}
        self.assertEqual(agreement, dict.fromkeys(PREDICTED, "equal"), predicted)
        return "\n".join(event["description"] for each in predicted["pcrs"] for event in each["events"])

    def test_debian_chain_under_secure_boot(self):
        printed = self.predict_and_boot("chain-on", harness.GUEST, "--secure-boot", "required")
        self.assertEqual(printed.count("by shim for GRUB's"), 2, printed)

    def test_debian_chain_with_secure_boot_off(self):
        printed = self.predict_and_boot("chain-off", harness.GUEST, "--boot-type", "uefi", "--boot-mode", "legacy")
        self.assertNotIn("by shim for GRUB's", printed)

    def test_two_processors_and_more_memory_without_a_network(self):
        self.predict_and_boot("larger", harness.GUEST, "--secure-boot", "required", network="none", flavor="medium")

    def test_script_with_branches_and_quotations(self):
        disk = Disk(self.folder, "script")
        disk.put_text(GRUB_CONFIG, "/EFI/debian/grub.cfg")
        printed = self.predict_and_boot("script", disk.path, "--secure-boot", "required")
        self.assertIn("kernel command line: /vmlinuz console=ttyS0,115200 panic=-1 quiet y=3y", printed)

    def test_grub_without_shim(self):
        disk = Disk(self.folder, "grub")
        disk.put(disk.take("/EFI/BOOT/grubx64.efi"), "/EFI/BOOT/BOOTX64.EFI")
        self.predict_and_boot("grub", disk.path, "--boot-type", "uefi", "--boot-mode", "legacy")

    def test_kernel_by_its_own_stub(self):
        disk = Disk(self.folder, "kernel")
        kernel = disk.take("/vmlinuz")
        disk.put(kernel, "/EFI/BOOT/BOOTX64.EFI")
        self.predict_and_boot("kernel", disk.path, "--boot-type", "uefi", "--boot-mode", "legacy")

    def test_unified_kernel_image(self):
        if not STUB.exists():
            self.skipTest(f"{STUB} is missing: apt-get install systemd-boot-efi")
        disk = Disk(self.folder, "unified")
        options = disk.path.with_suffix(".cmdline")
        options.write_text(" console=ttyS0\tpanic=-1  quiet \n")
        image = disk.path.with_suffix(".efi")
        unified_image(image, {".cmdline": options, ".initrd": disk.take("/initrd.img"), ".linux": disk.take("/vmlinuz")})
        disk.put(image, "/EFI/BOOT/BOOTX64.EFI")
        printed = self.predict_and_boot("unified", disk.path, "--boot-type", "uefi", "--boot-mode", "legacy")
        self.assertIn("load options:  console=ttyS0 panic=-1  quiet", printed)


if __name__ == "__main__":
    unittest.main()
