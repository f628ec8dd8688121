#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A host without SMM or secure firmware is never chosen for Secure Boot, and the explanation says why."""

import json
import pathlib
import shutil
import unittest

import harness

DESCRIPTORS = pathlib.Path("/usr/share/qemu/firmware")


class PlacementTest(harness.EndToEndTest):
    @classmethod
    def set_up_deployment(cls, deployment):
        # A host that has UEFI, but no firmware descriptor with secure-boot.
        plain = deployment.dir / "plain-firmware"
        plain.mkdir()
        for path in DESCRIPTORS.glob("*.json"):
            if "secure-boot" not in json.loads(path.read_text())["features"]:
                shutil.copy(path, plain)
        assert list(plain.iterdir()), "the machine has no plain UEFI firmware descriptor"
        deployment.add_agent("plain", ["--firmware-dir", str(plain)])
        # A host whose QEMU takes no smm=on.
        qemu = deployment.dir / "qemu-without-smm"
        qemu.write_text(
            "#!/bin/sh\n"
            'for word in "$@"; do case $word in *smm=on*) echo "smm is not supported here" >&2; exit 1;; esac; done\n'
            'exec qemu-system-x86_64 "$@"\n'
        )
        qemu.chmod(0o755)
        deployment.add_agent("nosmm", ["--qemu", str(qemu)])
        deployment.import_guest()

    def explain(self, *options):
        return json.loads(
            self.deployment.vallum(
                "schedule", "explain", "--image", "debian12", "--flavor", "tiny", *options, "-o", "json"
            )
        )

    def test_no_host_fits_and_each_has_its_reason(self):
        reply = self.explain("--secure-boot", "required")
        self.assertNotIn("chosen", {k for k, v in reply.items() if v})
        reasons = {h["host"]: h["requirement"] + " " + h["detail"] for h in reply["hosts"]}
        self.assertIn("COMPUTE_SECURITY_UEFI_SECURE_BOOT", reasons["plain"])
        self.assertRegex(reasons["plain"], "(?i)firmware")
        self.assertRegex(reasons["nosmm"], "(?i)smm")
        table = self.deployment.vallum(
            "schedule", "explain", "--image", "debian12", "--flavor", "tiny", "--secure-boot", "required"
        )
        self.assertIn("plain", table)
        self.assertIn("nosmm", table)

    def test_secure_instance_is_not_placed_and_says_why(self):
        d = self.deployment
        code, _, err = d.try_vallum(
            "instance", "create", "secure", "--image", "debian12", "--flavor", "tiny", "--secure-boot", "required",
            "--wait", "--timeout", "10",
        )
        self.assertNotEqual(code, 0)
        status = d.get("instance", "secure")["status"]
        self.assertFalse(status.get("host"))
        self.assertIn("COMPUTE_SECURITY_UEFI_SECURE_BOOT", status["reason"] + err)
        d.vallum("instance", "delete", "secure", "--wait")

    def test_legacy_instance_is_placed_on_either(self):
        reply = self.explain("--boot-type", "uefi", "--boot-mode", "legacy")
        self.assertTrue(reply["chosen"])


if __name__ == "__main__":
    unittest.main()
