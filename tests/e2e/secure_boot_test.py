#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Secure Boot as seen from outside: what firmware enforced and what the vTPM measured."""

import pathlib
import re
import tempfile
import unittest

import harness


class SecureBootTest(harness.EndToEndTest):
    def test_debian_chain_is_verified_and_the_kernel_is_locked_down(self):
        d = self.deployment
        d.create("web1", "--secure-boot", "required", "--network", "user", "--tpm", "tpm-crb")
        measured = d.wait_verdict("web1")
        status = d.get("instance", "web1")["status"]
        self.assertEqual(measured["verdict"], "BOOT_VERIFIED", measured)
        self.assertEqual(measured["secureBoot"], "SECURE_BOOT_ON")
        self.assertEqual(measured["pcr7Measured"], measured["pcr7Computed"])
        self.assertRegex(measured["pcr7Measured"], "^[0-9a-f]{64}$")
        effective = status["boot"]["effective"]
        self.assertEqual((effective["type"], effective["mode"]), ("BOOT_TYPE_UEFI", "BOOT_MODE_SECURE"))
        self.assertTrue(effective["smm"])
        self.assertEqual(effective["keySet"], "microsoft")
        self.assertRegex(effective["firmwareSha256"], "^[0-9a-f]{64}$")
        serial = d.wait_serial("web1", "vallum-guest: ready")
        self.assertIn("vallum-guest: firmware uefi secure-boot=01", serial)
        self.assertIn("vallum-guest: lockdown none [integrity] confidentiality", serial)
        # The guest's own view of PCR 7 is what we say was measured.
        guest_pcr7 = re.search(r"vallum-guest: pcr sha256 7 ([0-9A-F]{64})", serial).group(1)
        self.assertEqual(guest_pcr7.lower(), d.get("instance", "web1")["status"]["boot"]["measured"]["pcr7Measured"])
        shown = d.vallum("instance", "show", "web1")
        for word in ("requested", "effective", "measured", "verified", "microsoft"):
            self.assertIn(word, shown.lower())

    def refused(self, name, esp_file, marker):
        d = self.deployment
        with tempfile.TemporaryDirectory() as folder:
            disk = pathlib.Path(folder) / "changed.raw"
            harness.guest_with_changed_byte(disk, esp_file, marker)
            d.import_guest(name, disk)
        d.create(name, "--secure-boot", "required", image=name)
        measured = d.wait_verdict(name)
        self.assertEqual(measured["verdict"], "BOOT_REFUSED", measured)
        self.assertTrue(any(re.search("Security Violation|Access Denied", r) for r in measured["reasons"]), measured)
        self.assertNotIn("vallum-guest:", d.serial(name))
        self.assertRegex(d.vallum("instance", "show", name), "(?i)refused")
        code, _, err = d.try_vallum("instance", "wait", name, "--for", "boot-verdict", "--timeout", "10")
        self.assertNotEqual(code, 0, err)

    def test_one_changed_byte_of_grub_is_refused_and_said(self):
        self.refused("bad-grub", "/EFI/BOOT/grubx64.efi", b"Welcome to GRUB")

    def test_one_changed_byte_of_shim_is_refused_by_the_firmware_and_said(self):
        self.refused("bad-shim", "/EFI/BOOT/BOOTX64.EFI", b"import_mok_state")


if __name__ == "__main__":
    unittest.main()
