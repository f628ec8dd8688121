#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Other keys for instances that run: to all when the canary's boot is verified, back again when it is not."""

import json
import pathlib
import tempfile
import unittest

import harness
from guest_disk import Keys


class RolloutTest(harness.EndToEndTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.keys = Keys(pathlib.Path(folder.name), "rollout")
        d = cls.deployment
        d.vallum("keyset", "create", "prod", "--from", "microsoft")
        for name in ("one", "two"):
            d.create(name, "--secure-boot", "required", "--key-set", "prod")
            assert d.wait_verdict(name)["verdict"] == "BOOT_VERIFIED"

    def versions(self):
        return [self.deployment.get("instance", name)["spec"]["keySetVersion"] for name in ("one", "two")]

    def reboot_when_set(self, name, version):
        d = self.deployment
        d.until(lambda: d.get("instance", name)["spec"]["keySetVersion"] == version, f"{name} has version {version}",
                harness.BOOT_TIMEOUT)
        d.vallum("instance", "reboot", name, "--wait")

    def test_1_new_keys_reach_all_once_the_canary_is_verified(self):
        d = self.deployment
        d.vallum("keyset", "update", "prod", "--db", str(self.keys.certificate("db")))
        plan = d.vallum("keyset", "rollout", "prod@2", "--canaries", "1", "--dry-run")
        self.assertIn("one", plan)
        d.vallum("keyset", "rollout", "prod@2", "--canaries", "1", "--name", "wider")
        self.reboot_when_set("one", 2)
        self.reboot_when_set("two", 2)
        d.until(lambda: d.get("rollout", "wider")["status"]["state"] == "ROLLOUT_DONE", "the roll-out is done",
                harness.BOOT_TIMEOUT)
        self.assertEqual(self.versions(), [2, 2])

    def test_2_canary_that_is_refused_takes_its_keys_back(self):
        d = self.deployment
        # Microsoft's keys are gone: the firmware refuses shim.
        d.vallum("keyset", "update", "prod", "--clear", "db", "--db", str(self.keys.certificate("db")))
        plan = json.loads(d.vallum("keyset", "rollout", "prod@3", "--dry-run", "-o", "json"))
        self.assertIn("would stop booting", json.dumps(plan))
        d.vallum("keyset", "rollout", "prod@3", "--canaries", "1", "--include-unbootable", "--name", "broken")
        self.reboot_when_set("one", 3)
        d.until(lambda: d.get("rollout", "broken")["status"]["state"] == "ROLLOUT_RETURNED", "the roll-out is taken back",
                harness.BOOT_TIMEOUT)
        self.assertEqual(self.versions(), [2, 2])
        d.vallum("instance", "reboot", "one", "--wait")
        self.assertEqual(d.wait_verdict("one")["verdict"], "BOOT_VERIFIED")

    def test_3_audit_names_what_hangs_on_the_certificates_of_2011(self):
        shown = self.deployment.vallum("keyset", "audit")
        self.assertIn("Microsoft Corporation UEFI CA 2011", shown)
        self.assertIn("one", shown)
        self.assertIn("Microsoft UEFI CA 2023", shown)


if __name__ == "__main__":
    unittest.main()
