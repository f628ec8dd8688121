#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A host with a TPM of its own (swtpm) in a trusted pool: who may start what, and when no more."""

import datetime
import pathlib
import signal
import struct
import subprocess
import unittest

import harness

POLICY = """name = "gold"
version = 1

[tpm]
banks = ["sha256"]

[pcr.7]
rule = "golden"
values = [ { sha256 = "%s" } ]
"""
ZEROS = "00" * 32  # nothing was measured into it
LEASE = 20
QUOTE = 5  # in a bundle of evidence


def parts_of(bundle):
    """The parts of a bundle of evidence by number: packed or not, begin and end (docs/formats/evidence_bundle.md)."""
    parts, at = {}, 12
    while at < len(bundle):
        number, packed, _, size = struct.unpack_from("<HHQQ", bundle, at)
        at += struct.calcsize("<HHQQ")
        parts[number] = (packed, at, at + size)
        at += size
    return parts


def seconds_left(timestamp):
    return (datetime.datetime.fromisoformat(timestamp) - datetime.datetime.now(datetime.UTC)).total_seconds()


class HostTpm:
    """swtpm on a unix socket, as a host's TPM."""

    def __init__(self, folder, banks=None):
        """banks: those that it keeps, such as "sha384"; else swtpm's own choice."""
        self.path = pathlib.Path(folder) / "host-tpm.sock"
        state = pathlib.Path(folder) / "host-tpm"
        state.mkdir()
        if banks is not None:
            subprocess.run(["swtpm_setup", "--tpm2", "--tpmstate", state, "--pcr-banks", banks], check=True,
                           stdout=subprocess.DEVNULL)
        self.process = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", f"type=unixio,path={self.path}",
             "--ctrl", f"type=unixio,path={self.path}.ctrl", "--flags", "not-need-init,startup-clear"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )


class TrustedPoolTest(harness.EndToEndTest):
    @classmethod
    def set_up_deployment(cls, d):
        cls.tpm = tpm = HostTpm(d.dir)
        cls.addClassCleanup(tpm.process.wait)
        cls.addClassCleanup(tpm.process.kill)
        d.until(tpm.path.exists, "swtpm listens")
        cls.write_policy(ZEROS)
        d.vallum("policy", "create", "gold", "--file", str(d.dir / "policy.toml"))
        d.vallum("policy", "activate", "gold")
        d.vallum("pool", "create", "gold", "--trusted", "--attestation-policy", "gold", "--lease-seconds", str(LEASE),
                 "--attest-interval", "5")
        d.add_agent(options=("--tpm", f"swtpm:path={tpm.path}"), wait=False, pool="gold")
        d.import_guest()

    @classmethod
    def write_policy(cls, value):
        (cls.deployment.dir / "policy.toml").write_text(POLICY % value)

    def host(self):
        return self.deployment.get("host", "host1")["status"]

    def activate(self, value):
        d = self.deployment
        self.write_policy(value)
        d.vallum("policy", "update", "gold", "--file", str(d.dir / "policy.toml"))
        d.vallum("policy", "activate", "gold")

    def until_level(self, level, state):
        self.deployment.until(
            lambda: (self.host().get("trust", {}).get("level"), self.host()["state"]) == (level, state),
            f"host1 is {level} and {state}", 60)

    def test_1_tpm_that_nobody_certified_waits_for_an_approval_that_names_it(self):
        d = self.deployment
        d.until(lambda: "pendingIdentity" in self.host(), "its TPM waits", 60)
        self.assertEqual(self.host()["state"], "HOST_NON_OPERATIONAL")
        self.assert_refused(4, "host", "approve", "host1", "--ek", "00" * 32)
        d.vallum("host", "approve", "host1", "--ek", self.host()["pendingIdentity"]["ekSha256"])
        self.until_level("TRUST_TRUSTED", "HOST_UP")

    def test_2_untrusted_host_loses_its_instances_and_starts_none(self):
        d = self.deployment
        d.create("web1", "--pool", "gold")
        d.create("web2", "--pool", "gold")
        d.vallum("instance", "stop", "web2", "--force", "--wait")
        self.activate("11" * 32)
        self.until_level("TRUST_UNTRUSTED", "HOST_NON_OPERATIONAL")
        reason = self.host()["trust"]["reasons"][0]
        self.assertEqual((reason["id"], reason["pcr"]), ("pcr-value", 7), reason)
        d.until(lambda: d.get("instance", "web1")["status"]["phase"] == "INSTANCE_STOPPED", "web1 was stopped")
        self.assertIn("UNTRUSTED", d.get("instance", "web1")["status"]["reason"])
        self.assertIn("is not trusted", self.assert_refused(4, "instance", "start", "web2"))
        self.assertIn("NON_OPERATIONAL", str(d.get("host", "host1")))
        self.activate(ZEROS)
        self.until_level("TRUST_TRUSTED", "HOST_UP")
        d.vallum("instance", "start", "web2", "--wait")

    def test_3_agent_without_a_lease_starts_nothing_whatever_it_is_told(self):
        d = self.deployment
        d.vallum("instance", "stop", "web2", "--force", "--wait")
        # No quote, so no new lease; and the one that it has is lost.
        self.tpm.process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.tpm.process.send_signal, signal.SIGCONT)
        d.agents["host1"].kill()
        (d.dir / "host1/lease.pb").unlink()
        d.agents["host1"].start()
        d.vallum("instance", "start", "web2")
        d.until(lambda: "lease" in d.get("instance", "web2")["status"].get("reason", ""), "the agent refuses to start web2", 90)
        self.assertNotEqual(d.get("instance", "web2")["status"]["phase"], "INSTANCE_RUNNING")
        # Its trust is too old by now, which is not the same as untrusted.
        self.until_level("TRUST_STALE", "HOST_NON_OPERATIONAL")
        self.assertNotIn("untrusted", (d.dir / "host1.log").read_text().lower())
        self.tpm.process.send_signal(signal.SIGCONT)
        self.until_level("TRUST_TRUSTED", "HOST_UP")
        d.until(lambda: d.get("instance", "web2")["status"]["phase"] == "INSTANCE_RUNNING", "web2 runs by itself", 90)

    def test_4_restarted_controller_keeps_the_pool_up_until_its_hosts_are_judged_anew(self):
        d = self.deployment
        # A lease that outlives a slow restart.
        d.vallum("pool", "update", "gold", "--lease-seconds", "180")
        d.until(lambda: seconds_left(self.host()["trust"]["leaseExpireTime"]) > 90, "the lease is a long one")
        self.assertEqual(d.restart_controller(["host1"]), {("host1", "HOST_UP")})

    def test_5_evidence_is_judged_offline_and_refused_once_a_byte_was_changed(self):
        d = self.deployment
        evidence, policy = d.dir / "host1.evidence", d.dir / "gold.toml"
        d.vallum("host", "evidence", "host1", "--kind", "last", "--out", str(evidence))
        policy.write_text(d.vallum("policy", "show", "gold", "--document"))
        offline = dict(d.environment, VALLUM_CONFIG_DIR=str(d.dir / "nothing"))

        def verify(*arguments):
            done = subprocess.run([str(harness.BIN / "vallum"), "attest", "verify", str(evidence), *arguments],
                                  env=offline, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr

        code, said = verify("--policy", str(policy))
        self.assertEqual(code, 0, said)
        self.assertIn("verdict: trusted (policy gold version ", said)
        # What nobody says how it should be is not trusted.
        code, said = verify()
        self.assertEqual(code, 10, said)
        self.assertIn("verdict: unknown", said)

        bundle = bytearray(evidence.read_bytes())
        packed, _, end = parts_of(bundle)[QUOTE]
        self.assertFalse(packed)
        bundle[end - 1] ^= 1  # of the digest over the PCRs
        evidence.write_bytes(bundle)
        code, said = verify("--policy", str(policy))
        self.assertEqual(code, 10, said)
        self.assertIn("quote-signature", said)
        self.assertIn("verdict: untrusted", said)


class Sha384HostTest(harness.EndToEndTest):
    """A host whose TPM keeps SHA-384 alone, and that has no event log."""

    @classmethod
    def set_up_deployment(cls, d):
        tpm = HostTpm(d.dir, "sha384")
        cls.addClassCleanup(tpm.process.wait)
        cls.addClassCleanup(tpm.process.kill)
        d.until(tpm.path.exists, "swtpm listens")
        d.vallum("pool", "create", "gold", "--trusted")
        d.add_agent(options=("--tpm", f"swtpm:path={tpm.path}"), wait=False, pool="gold")

    def host(self):
        return self.deployment.get("host", "host1")["status"]

    def test_policy_is_learned_from_it_and_it_is_trusted_by_that(self):
        d = self.deployment
        d.until(lambda: "pendingIdentity" in self.host(), "its TPM waits", 60)
        d.vallum("host", "approve", "host1", "--ek", self.host()["pendingIdentity"]["ekSha256"])
        d.until(lambda: self.host()["trust"].get("evidenceSha256"), "its evidence is kept")
        d.vallum("policy", "learn", "--from", "host1", "--create", "gold")
        self.assertIn('banks = ["sha384"]', d.vallum("policy", "show", "gold", "--document"))
        d.vallum("policy", "activate", "gold")
        d.vallum("pool", "update", "gold", "--attestation-policy", "gold")
        d.until(lambda: (self.host()["trust"]["level"], self.host()["state"]) == ("TRUST_TRUSTED", "HOST_UP"),
                "host1 is trusted")


if __name__ == "__main__":
    unittest.main()
