#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A pool that moves instances: its host loses its trust, and the instance goes on on another one."""

import hashlib
import subprocess
import unittest

import harness
from trusted_pool_test import ZEROS, HostTpm

MARK = hashlib.sha256(b"what host1 alone has measured").hexdigest()
EXTENDED = hashlib.sha256(bytes(32) + bytes.fromhex(MARK)).hexdigest()
POLICY = """name = "gold"
version = 1

[tpm]
banks = ["sha256"]

[pcr.14]
rule = "golden"
values = [ %s ]
"""


class MovingTest(harness.EndToEndTest):
    @classmethod
    def set_up_deployment(cls, d):
        cls.policy([ZEROS, EXTENDED])
        d.vallum("policy", "create", "gold", "--file", str(d.dir / "policy.toml"))
        d.vallum("policy", "activate", "gold")
        d.vallum("pool", "create", "gold", "--trusted", "--attestation-policy", "gold", "--on-untrusted", "move",
                 "--attest-interval", "5")
        d.import_guest()
        for name in ("host1", "host2"):
            (d.dir / f"tpm-{name}").mkdir()
            tpm = HostTpm(d.dir / f"tpm-{name}")
            cls.addClassCleanup(tpm.process.wait)
            cls.addClassCleanup(tpm.process.kill)
            d.until(tpm.path.exists, "swtpm listens")
            if name == "host1":
                subprocess.run(["tpm2_pcrextend", "-T", f"swtpm:path={tpm.path}", f"14:sha256={MARK}"], check=True)
            d.add_agent(name, options=("--tpm", f"swtpm:path={tpm.path}"), wait=False, pool="gold")
            cls.approve(name)
            if name == "host1":
                d.create("web1", "--pool", "gold", "--secure-boot", "required")

    @classmethod
    def policy(cls, values):
        (cls.deployment.dir / "policy.toml").write_text(POLICY % ", ".join('{ sha256 = "%s" }' % v for v in values))

    @classmethod
    def approve(cls, name):
        d = cls.deployment
        d.until(lambda: "pendingIdentity" in d.get("host", name)["status"], f"the TPM of {name} waits", 60)
        d.vallum("host", "approve", name, "--ek", d.get("host", name)["status"]["pendingIdentity"]["ekSha256"])
        d.until(lambda: d.get("host", name)["status"]["state"] == "HOST_UP", f"{name} is up", 60)

    def test_instance_leaves_a_host_that_lost_its_trust_and_goes_on_on_another(self):
        d = self.deployment
        self.assertEqual(d.wait_verdict("web1")["verdict"], "BOOT_VERIFIED")
        before = d.get("instance", "web1")
        self.assertEqual(before["status"]["host"], "host1")
        left = d.instance_dir("web1", "host1")
        self.assertTrue(left.exists())

        self.policy([ZEROS])
        d.vallum("policy", "update", "gold", "--file", str(d.dir / "policy.toml"))
        d.vallum("policy", "activate", "gold")

        def moved():
            status = d.get("instance", "web1")["status"]
            return (status["host"], status["phase"]) == ("host2", "INSTANCE_RUNNING")

        d.until(moved, "web1 runs on host2", 2 * harness.BOOT_TIMEOUT)
        self.assertEqual(d.get("host", "host1")["status"]["trust"]["level"], "TRUST_UNTRUSTED")
        after = d.get("instance", "web1")
        self.assertEqual(after["metadata"]["uid"], before["metadata"]["uid"])
        # Its own vTPM and variables: what it boots is what it booted before.
        self.assertEqual(d.wait_verdict("web1")["verdict"], "BOOT_VERIFIED")
        keys = [each["status"]["vtpm"]["akName"] for each in (before, d.get("instance", "web1"))]
        self.assertEqual(keys[0], keys[1])
        d.until(lambda: not left.exists(), "host1 has removed what web1 left")
        self.assertIn("instance.moved", d.vallum("event", "list", "-o", "json"))


if __name__ == "__main__":
    unittest.main()
