#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A complete Debian 12 with systemd and cloud-init boots with Secure Boot and does what its seed says. Minutes under TCG, so
only `scripts/test --all` runs it."""

import pathlib
import tempfile
import unittest

import harness

DISK = harness.SOURCE / "build/guest/debian-full.raw"
TIMEOUT = 900

USER_DATA = """#cloud-config
runcmd:
  - [sh, -c, "echo vallum-full: cloud-init ran on $(hostname) > /dev/ttyS0"]
  - [sh, -c, "echo vallum-full: $(cat /sys/kernel/security/lockdown) > /dev/ttyS0"]
"""


class FullGuestTest(harness.EndToEndTest):
    @classmethod
    def set_up_deployment(cls, deployment):
        if not DISK.exists():
            raise unittest.SkipTest(f"{DISK} is missing: run scripts/make-debian-guest --full")
        deployment.add_agent()
        deployment.import_guest("full", DISK)

    def test_cloud_init_applies_the_seed_under_a_verified_boot(self):
        d = self.deployment
        with tempfile.TemporaryDirectory() as folder:
            user_data = pathlib.Path(folder) / "user-data"
            user_data.write_text(USER_DATA)
            d.vallum("instance", "create", "full1", "--image", "full", "--flavor", "small", "--secure-boot", "required",
                     "--network", "user", "--user-data", str(user_data), "--wait")
        serial = d.wait_serial("full1", "vallum-full: none [integrity] confidentiality", TIMEOUT)
        self.assertIn("vallum-full: cloud-init ran on full1", serial)
        measured = d.get("instance", "full1")["status"]["boot"]["measured"]
        self.assertEqual(measured["verdict"], "BOOT_VERIFIED", measured)
        d.vallum("instance", "stop", "full1", "--wait", "--timeout", "300")
        self.assertEqual(d.get("instance", "full1")["status"]["phase"], "INSTANCE_STOPPED")


if __name__ == "__main__":
    unittest.main()
