#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is said of an image before anything starts, and images that come in other formats."""

import json
import pathlib
import subprocess
import tempfile
import unittest
import uuid

import harness

SHA256_GUID = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328")  # EFI_CERT_SHA256_GUID


def signature_list(digest):
    """One EFI_SIGNATURE_LIST with one SHA-256, as dbx updates are made of."""
    sizes = b"".join(n.to_bytes(4, "little") for n in (28 + 48, 0, 48))
    return SHA256_GUID.bytes_le + sizes + bytes(16) + bytes.fromhex(digest)


class PreflightTest(harness.EndToEndTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)

    def report(self, image):
        """The image's status, and the report on it under Microsoft's keys."""
        status = self.deployment.get("image", image)["status"]
        reports = {each["keySet"]: each for each in status["bootReports"]}
        self.assertIn("microsoft", reports, status)
        return status, reports["microsoft"]

    def boots_converted(self, name, options):
        d = self.deployment
        disk = self.folder / f"disk.{name}"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", name, *options, harness.GUEST, disk], check=True)
        # Without --disk-format: it is what its content says.
        d.vallum("image", "import", str(disk), "--name", name, "--wait")
        status, report = self.report(name)
        self.assertEqual((status["detectedFormat"], status["sourceFormat"]), ("qcow2", name))
        self.assertEqual(report["bootable"], "yes", report)
        d.create(name, "--secure-boot", "required", image=name)
        measured = d.wait_verdict(name)
        self.assertEqual(measured["verdict"], "BOOT_VERIFIED", measured)

    def test_vmdk_is_converted_and_boots_verified(self):
        self.boots_converted("vmdk", ["-o", "subformat=streamOptimized"])

    def test_vhdx_is_converted_and_boots_verified(self):
        self.boots_converted("vhdx", [])

    def test_debian_is_bootable_under_microsoft_and_says_by_what(self):
        _, report = self.report("debian12")
        self.assertEqual(report["bootable"], "yes", report)
        self.assertEqual([link["role"] for link in report["chain"]], ["shim", "grub", "kernel"])
        self.assertTrue(report["chain"][0]["authority"].startswith("db: "), report)
        printed = self.deployment.vallum("image", "inspect", str(harness.GUEST), "--key-set", "microsoft")
        self.assertIn("bootable under key set microsoft: yes", printed)

    def test_changed_grub_is_refused_before_anything_starts(self):
        disk = self.folder / "changed.raw"
        harness.guest_with_changed_byte(disk, "/EFI/BOOT/grubx64.efi", b"Welcome to GRUB")
        self.deployment.import_guest("changed", disk)
        _, report = self.report("changed")
        self.assertEqual(report["bootable"], "no", report)
        self.assertTrue(report["reasons"] and all("grubx64.efi" in each for each in report["reasons"]), report)
        self.assertTrue(report["fixes"], report)

    def test_update_that_revokes_the_shim_lists_image_and_instance(self):
        d = self.deployment
        d.create("revoked", "--secure-boot", "required")
        _, report = self.report("debian12")
        update = self.folder / "dbx.esl"
        update.write_bytes(signature_list(report["chain"][0]["authenticodeSha256"]))
        reply = json.loads(d.vallum("keyset", "check-update", str(update), "-o", "json"))
        affected = {(each["image"], each["keySet"]): each for each in reply["affected"]}
        self.assertIn(("debian12", "microsoft"), affected, reply)
        self.assertEqual(affected["debian12", "microsoft"]["instances"], ["revoked"])
        self.assertNotIn("unknown", reply)
        # It asks and changes nothing.
        self.assertEqual(self.report("debian12")[1], report)
        update.write_bytes(b"nonsense")
        self.assert_refused(2, "keyset", "check-update", str(update))


if __name__ == "__main__":
    unittest.main()
