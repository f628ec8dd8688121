#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Guests under key sets of an operator's own: what starts, what does not, and what is said of it."""

import json
import pathlib
import struct
import subprocess
import tempfile
import unittest

import harness
from guest_disk import STUB, Disk, Keys

COMMAND_LINE = "console=ttyS0,115200 panic=-1 quiet"


def vendor_certificate(shim):
    """The certificate that a shim carries: its section .vendor_cert begins with two sizes and two offsets."""
    section = shim.with_suffix(".section")
    subprocess.run(["objcopy", "-O", "binary", "--only-section=.vendor_cert", str(shim), str(section)], check=True)
    content = section.read_bytes()
    size, _, offset, _ = struct.unpack_from("<4I", content)
    return content[offset : offset + size]


class OwnKeysTest(harness.EndToEndTest):
    @classmethod
    def set_up_deployment(cls, deployment):
        if not STUB.exists():
            raise unittest.SkipTest(f"{STUB} is missing: apt-get install systemd-boot-efi")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.keys = Keys(cls.folder)
        deployment.add_agent()
        deployment.import_guest()
        deployment.vallum("keyset", "create", "own", "--pk", str(cls.keys.certificate("PK")),
                          "--kek", str(cls.keys.certificate("KEK")), "--db", str(cls.keys.certificate("db")))
        cls.unified = Disk(cls.folder, "unified")
        cls.unified.put(cls.keys.sign(cls.unified.unified(COMMAND_LINE)), "/EFI/BOOT/BOOTX64.EFI")
        deployment.import_guest("unified", cls.unified.path)

    def boot(self, name, image, key_set):
        d = self.deployment
        d.create(name, "--secure-boot", "required", "--key-set", key_set, image=image)
        return d.wait_verdict(name)

    def test_loader_signed_by_the_own_key_boots_verified(self):
        d = self.deployment
        measured = self.boot("own", "unified", "own")
        self.assertEqual(measured["verdict"], "BOOT_VERIFIED", measured)
        self.assertEqual((measured["early"], measured["late"]), ("BOOT_VERIFIED", "BOOT_VERIFIED"), measured)
        self.assertEqual(measured["secureBoot"], "SECURE_BOOT_ON")
        self.assertIn("secure-boot=01", d.wait_serial("own", "vallum-guest: ready"))
        effective = d.get("instance", "own")["status"]["boot"]["effective"]
        self.assertEqual((effective["keySet"], effective["keySetVersion"]), ("own", 1), effective)

    def test_loader_signed_by_microsoft_is_refused_and_said_why(self):
        measured = self.boot("foreign", "debian12", "own")
        self.assertEqual(measured["verdict"], "BOOT_REFUSED", measured)
        said = "\n".join(measured["reasons"])
        self.assertRegex(said, "Access Denied|Security Violation")
        self.assertRegex(said, r"(?i)BOOTX64\.EFI.*Microsoft")
        self.assertNotIn("vallum-guest:", self.deployment.serial("foreign"))

    def test_kernel_of_debian_boots_without_shim_under_debians_authority(self):
        disk = Disk(self.folder, "kernel")
        authority = self.folder / "debian.der"
        authority.write_bytes(vendor_certificate(disk.take("/EFI/BOOT/BOOTX64.EFI")))
        disk.put(disk.take("/vmlinuz"), "/EFI/BOOT/BOOTX64.EFI")
        self.deployment.vallum("keyset", "create", "debians", "--pk", str(self.keys.certificate("PK")),
                               "--kek", str(self.keys.certificate("KEK")), "--db", str(authority))
        self.deployment.import_guest("kernel", disk.path)
        measured = self.boot("kernel", "kernel", "debians")
        self.assertEqual((measured["verdict"], measured["secureBoot"]), ("BOOT_VERIFIED", "SECURE_BOOT_ON"), measured)

    def test_digest_in_dbx_turns_the_next_boot_into_refused_naming_it(self):
        d = self.deployment
        self.assertEqual(self.boot("later", "unified", "own")["verdict"], "BOOT_VERIFIED")
        report = json.loads(d.vallum("image", "inspect", str(self.unified.path), "-o", "json"))
        digest = next(b["authenticodeSha256"] for b in report["bootBinaries"] if b["path"].endswith("BOOTX64.EFI"))
        d.vallum("keyset", "create", "revoking", "--from", "own", "--dbx-hash", digest)
        # It says beforehand that the image would not start, and wants to be told.
        refused = self.assert_refused(4, "instance", "set-keyset", "later", "revoking")
        self.assertIn(digest[:16], refused)
        d.vallum("instance", "set-keyset", "later", "revoking", "--force")
        d.vallum("instance", "stop", "later", "--force", "--wait")
        d.vallum("instance", "start", "later", "--wait")
        measured = d.wait_verdict("later")
        self.assertEqual(measured["verdict"], "BOOT_REFUSED", measured)
        self.assertTrue(any(digest[:16] in reason and "dbx" in reason for reason in measured["reasons"]), measured)
        # The firmware then tries its own shell, which changes nothing.
        d.until(lambda: "firmware's own program" in [s["name"] for s in self.measured("later")["stages"]],
                "the firmware tries its shell", harness.BOOT_TIMEOUT)
        after = self.measured("later")
        self.assertEqual(after["verdict"], "BOOT_REFUSED", after)

    def measured(self, name):
        return self.deployment.get("instance", name)["status"]["boot"]["measured"]

    def test_image_may_name_the_one_program_that_its_instances_start(self):
        d = self.deployment
        digest = next(link["authenticodeSha256"] for report in d.get("image", "debian12")["status"]["bootReports"]
                      for link in report["chain"] if link["role"] == "shim")
        d.import_guest("pinned", properties=[f"os_secure_boot_signature={digest}"])
        d.create("pinned", "--secure-boot", "required", "--key-set", "own", image="pinned")
        d.until(lambda: any(s["name"] == "shim" for s in
                            d.get("instance", "pinned")["status"]["boot"]["measured"].get("stages", [])),
                "the firmware starts the shim that the image names", harness.BOOT_TIMEOUT)


if __name__ == "__main__":
    unittest.main()
