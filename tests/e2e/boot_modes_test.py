#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""UEFI without Secure Boot and BIOS boot the same disk and are shown as what they are."""

import unittest

import harness


class BootModesTest(harness.EndToEndTest):
    def test_uefi_legacy_boots_with_secure_boot_off(self):
        d = self.deployment
        d.create("legacy", "--boot-type", "uefi", "--boot-mode", "legacy")
        serial = d.wait_serial("legacy", "vallum-guest: ready")
        self.assertIn("vallum-guest: firmware uefi secure-boot=00", serial)
        self.assertIn("lockdown [none]", serial)
        d.wait_verdict("legacy")
        boot = d.get("instance", "legacy")["status"]["boot"]
        self.assertEqual((boot["effective"]["type"], boot["effective"]["mode"]), ("BOOT_TYPE_UEFI", "BOOT_MODE_LEGACY"))
        self.assertEqual(boot["measured"]["secureBoot"], "SECURE_BOOT_OFF")
        self.assertEqual(boot["measured"]["pcr7Measured"], boot["measured"]["pcr7Computed"])

    def test_bios_boots_and_is_unmeasured(self):
        d = self.deployment
        d.create("bios", "--boot-type", "bios")
        serial = d.wait_serial("bios", "vallum-guest: ready")
        self.assertIn("vallum-guest: firmware bios", serial)
        boot = d.get("instance", "bios")["status"]["boot"]
        self.assertEqual(boot["effective"]["type"], "BOOT_TYPE_BIOS")
        self.assertEqual(boot["measured"]["verdict"], "BOOT_UNMEASURED")

    def test_cloudstack_spelling_gives_the_same_as_our_own(self):
        d = self.deployment
        d.create("spelled", "--property", "boottype=UEFI", "--property", "bootmode=SECURE")
        requested = d.get("instance", "spelled")["status"]["boot"]["requested"]
        self.assertEqual((requested["type"], requested["mode"]), ("BOOT_TYPE_UEFI", "BOOT_MODE_SECURE"))
        self.assertIn("bootmode", requested["origin"])


if __name__ == "__main__":
    unittest.main()
