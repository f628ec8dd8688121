#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A trusted pool whose host is a guest itself: Secure Boot and a vTPM below, vallum-agent inside."""

import base64
import json
import struct
import subprocess
import tempfile
import unittest

import harness
from guest_disk import changing_disk_of, run
from trusted_pool_test import ZEROS, HostTpm, parts_of
from virtual_host import host_disk


PCR_VALUES = 7  # in a bundle of evidence
GATEWAY = "10.0.2.2"  # this machine, as guests on user networking see it


POLICY_OF_BOTH = """name = "gold"
version = 2

[tpm]
banks = ["sha256"]
emulated = "allowed"

[pcr.8]
rule = "golden"
values = [ { sha256 = "%s" }, { sha256 = "%s" } ]
"""


def quoted_pcrs(bundle):
    """The SHA-256 values of PCRs in a bundle of evidence."""
    packed, begin, end = parts_of(bundle)[PCR_VALUES]
    content = bundle[begin:end]
    if packed:
        content = subprocess.run(["zstd", "-dc"], input=content, check=True, capture_output=True).stdout
    algorithm, mask = struct.unpack_from("<HI", content)
    assert algorithm == 0x000B, "its first bank is not SHA-256"
    pcrs = [pcr for pcr in range(24) if mask >> pcr & 1]
    return {pcr: content[6 + 32 * i: 38 + 32 * i] for i, pcr in enumerate(pcrs)}


def dial(token, endpoint):
    """Has a join token name another address of the controller."""
    prefix, _, content = token.read_text().strip().partition(".")
    fields = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
    fields["endpoint"] = endpoint
    packed = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
    token.write_text(f"{prefix}.{packed}")


class VirtualHostTest(harness.EndToEndTest):
    controller_options = ("--tls-name", GATEWAY)

    @classmethod
    def set_up_deployment(cls, d):
        d.add_agent()
        folder = tempfile.TemporaryDirectory(dir=d.dir)
        cls.addClassCleanup(folder.cleanup)
        d.vallum("tpmauthority", "create", "deployment", "--file", str(d.dir / "controller/ca.pem"), "--emulated")
        d.vallum("pool", "create", "gold", "--trusted", "--lease-seconds", "180", "--attest-interval", "20")
        token = d.dir / "vhost.join"
        d.vallum("token", "create", "join-vhost", "--role", "join", "--pool", "gold", "--out", str(token))
        dial(token, f"{GATEWAY}:{d.agent_port}")
        d.import_guest("vhost", host_disk(folder.name, "vhost", token))
        d.vallum("flavor", "create", "host", "--vcpus", "1", "--memory", "1GiB")
        d.vallum("flavor", "create", "inner", "--vcpus", "1", "--memory", "64MiB")
        d.create("vhost", "--secure-boot", "required", "--network", "user", image="vhost", flavor="host")

    def tearDown(self):
        # What the host inside said; nothing else tells of it.
        said = self.deployment.serial("vhost").splitlines()
        print("\n".join(line for line in said if not line.endswith("is kept"))[-4000:], flush=True)

    def trust(self):
        return self.deployment.get("host", "vhost")["status"].get("trust", {})

    def until_level(self, level, state):
        d = self.deployment
        d.until(lambda: (self.trust().get("level"), d.get("host", "vhost")["status"]["state"]) == (level, state),
                f"vhost is {level} and {state}", 2 * harness.BOOT_TIMEOUT)

    def import_inner_image(self):
        """A disk with no program on it: its BIOS finds nothing, and the instance runs."""
        disk = self.deployment.dir / "inner.raw"
        with open(disk, "wb") as file:
            file.truncate(2 << 20)
        run("sgdisk", "--clear", "--set-alignment=1", "--new=1:40:2047", disk)
        self.deployment.import_guest("inner", disk)

    def add_second_host(self):
        """A host of the pool beside the virtual one: an agent of this machine, with a TPM that measured nothing."""
        d = self.deployment
        (d.dir / "tpm-host2").mkdir()
        tpm = HostTpm(d.dir / "tpm-host2")
        self.addClassCleanup(tpm.process.wait)
        self.addClassCleanup(tpm.process.kill)
        d.until(tpm.path.exists, "swtpm listens")
        d.add_agent("host2", options=("--tpm", f"swtpm:path={tpm.path}"), wait=False, pool="gold")
        d.until(lambda: "pendingIdentity" in d.get("host", "host2")["status"], "the TPM of host2 waits", 60)
        d.vallum("host", "approve", "host2", "--ek", d.get("host", "host2")["status"]["pendingIdentity"]["ekSha256"])

    def place_of(self, name):
        status = self.deployment.get("instance", name)["status"]
        return status["host"], status["phase"]

    def reboot(self, old, new):
        """Starts the host again with another word in its kernel's command line."""
        d = self.deployment
        d.vallum("instance", "stop", "vhost", "--force", "--wait")
        with changing_disk_of(d, "vhost") as disk:
            text = disk.take("/EFI/debian/grub.cfg").read_text()
            disk.put_text(text.replace(old, new), "/EFI/debian/grub.cfg")
        d.vallum("instance", "start", "vhost", "--wait")

    def test_1_host_is_trusted_by_what_it_booted_and_stays_so_over_a_restart_of_the_controller(self):
        d = self.deployment
        # Its evidence is there before there is a policy, so that one can be learned from it.
        self.until_level("TRUST_UNKNOWN", "HOST_NON_OPERATIONAL")
        d.until(lambda: self.trust().get("evidenceSha256"), "its evidence is kept", harness.BOOT_TIMEOUT)
        d.vallum("policy", "learn", "--from", "vhost", "--create", "gold")
        d.vallum("policy", "activate", "gold")
        d.vallum("pool", "update", "gold", "--attestation-policy", "gold")
        self.until_level("TRUST_TRUSTED", "HOST_UP")
        self.assertTrue(d.get("host", "vhost")["status"]["identity"]["emulated"])

        # A controller that is started again has the pool as it was, and judges it anew.
        self.assertEqual(d.restart_controller(["vhost"], 2 * harness.BOOT_TIMEOUT), {("vhost", "HOST_UP")})

    def test_2_rebooted_with_another_command_line_it_is_untrusted_by_event_its_instance_moves_and_it_returns(self):
        d = self.deployment
        self.import_inner_image()
        d.create("inner", "--pool", "gold", "--boot-type", "bios", image="inner", flavor="inner")
        before = d.get("instance", "inner")
        self.assertEqual(before["status"]["host"], "vhost")
        d.vallum("pool", "update", "gold", "--on-untrusted", "move")
        d.vallum("host", "evidence", "vhost", "--out", str(d.dir / "vhost.evidence"))
        good = quoted_pcrs((d.dir / "vhost.evidence").read_bytes())[8].hex()

        # Until it has kept its state: what it wrote after this was looked at does not count.
        kept = f"all of {before['metadata']['uid']} is kept"
        said = d.serial("vhost").count(kept)
        d.until(lambda: d.serial("vhost").count(kept) > said + 1, "vhost has kept inner", harness.BOOT_TIMEOUT)
        self.reboot("quiet", "quiet init=/bin/sh")
        self.until_level("TRUST_UNTRUSTED", "HOST_NON_OPERATIONAL")
        reasons = self.trust()["reasons"]
        self.assertIn("init=/bin/sh", str(reasons))
        self.assertIn(reasons[0]["pcr"], (8, 9), reasons)
        self.assertGreater(reasons[0]["event"], 0, reasons)
        # Its instance ended with the boot that was trusted, and waits for another host.
        self.assertEqual(d.get("instance", "inner")["status"]["phase"], "INSTANCE_CRASHED")
        self.assertIn("is not trusted", self.assert_refused(4, "instance", "start", "inner"))
        d.until(lambda: "no other host" in d.get("instance", "inner")["status"].get("reason", ""), "inner says that it waits")

        # One policy for both: the kernel's command line that was good, and a host of another kind.
        (d.dir / "both.toml").write_text(POLICY_OF_BOTH % (good, ZEROS))
        d.vallum("policy", "update", "gold", "--file", str(d.dir / "both.toml"))
        d.vallum("policy", "activate", "gold")
        self.add_second_host()
        d.until(lambda: self.place_of("inner") == ("host2", "INSTANCE_RUNNING"), "inner runs on host2", harness.BOOT_TIMEOUT)
        self.assertEqual(self.trust()["level"], "TRUST_UNTRUSTED")
        self.assertEqual(d.get("instance", "inner")["metadata"]["uid"], before["metadata"]["uid"])

        self.reboot("quiet init=/bin/sh", "quiet")
        self.until_level("TRUST_TRUSTED", "HOST_UP")
        d.until(lambda: not d.get("instance", "inner")["status"].get("leftOn"), "vhost has removed what inner left")
        self.assertEqual(self.place_of("inner"), ("host2", "INSTANCE_RUNNING"))


if __name__ == "__main__":
    unittest.main()
