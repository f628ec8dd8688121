#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Disk, variable store and vTPM move as one: snapshot, clone with a new and with a copied vTPM, trusted instances."""

import json
import subprocess
import unittest

import harness


class UnitsTest(harness.EndToEndTest):
    @classmethod
    def set_up_deployment(cls, deployment):
        super().set_up_deployment(deployment)
        deployment.create("source", "--secure-boot", "required", "--network", "user")
        deployment.wait_serial("source", "vallum-guest: ready")
        cls.measured = deployment.wait_verdict("source")

    def tpm_state(self, name):
        return (self.deployment.instance_dir(name) / "tpm/tpm2-00.permall").read_bytes()

    def endorsement_key(self, deployment, name):
        found = []
        deployment.until(lambda: found.append(deployment.get("instance", name)["status"]["vtpm"]["ekPublic"]) or True,
                         f"the endorsement key of {name} is told")
        return found[-1]

    def events(self, kind):
        items = json.loads(self.deployment.vallum("event", "list", "-o", "json"))["items"]
        return [event for event in items if event["kind"] == kind]

    def boots_verified(self, name):
        self.deployment.wait_serial(name, "vallum-guest: ready")
        measured = self.deployment.wait_verdict(name)
        self.assertEqual(measured["verdict"], "BOOT_VERIFIED", measured)
        return measured

    def test_1_running_instance_is_refused_and_the_fix_is_said(self):
        err = self.assert_refused(4, "snapshot", "create", "source", "--name", "early")
        self.assertIn("running", err)
        self.assertIn("vallum instance stop source --wait", err)
        self.assert_refused(3, "snapshot", "show", "early")

    def test_2_snapshot_holds_all_three_and_seals_the_secrets(self):
        d = self.deployment
        d.vallum("instance", "stop", "source", "--force", "--wait")
        d.vallum("snapshot", "create", "source", "--name", "snap", "--wait")
        status = d.get("snapshot", "snap")["status"]
        self.assertEqual(status["state"], "SNAPSHOT_READY")
        for part in ("disk", "variables", "tpm"):
            blob = d.dir / "controller/blobs"
            self.assertEqual(len(status[part]["sha256"]), 64)
            found = [p for p in blob.rglob(status[part]["sha256"])]
            self.assertEqual(len(found), 1, part)
        tpm = self.tpm_state("source")
        for path in (d.dir / "controller").rglob("*"):
            if path.is_file() and path.stat().st_size < (4 << 20):
                self.assertNotIn(tpm[64:128], path.read_bytes(), path)
        self.assertEqual((d.dir / "controller/seal.key").stat().st_mode & 0o777, 0o600)
        self.assertNotIn("takingSnapshot", d.get("instance", "source")["status"])

    def test_3_clone_with_a_new_vtpm_boots_verified_as_another_machine(self):
        d = self.deployment
        out = d.vallum("instance", "clone", "source", "fresh", "--snapshot", "snap", "--tpm", "new")
        self.assertIn("recovery key", out)
        measured = self.boots_verified("fresh")
        self.assertEqual(measured["pcr7Measured"], self.measured["pcr7Measured"])
        source, clone = d.get("instance", "source"), d.get("instance", "fresh")
        self.assertNotEqual(source["metadata"]["uid"], clone["metadata"]["uid"])
        self.assertRegex(d.serial("fresh"), f'seed instance-id: "?{clone["metadata"]["uid"]}"? local-hostname: "?fresh')
        self.assertNotEqual(self.endorsement_key(d, "fresh"), self.endorsement_key(d, "source"))
        d.vallum("instance", "stop", "fresh", "--force", "--wait")

    def test_4_clone_with_a_copied_vtpm_takes_over_its_state(self):
        d = self.deployment
        out = d.vallum("instance", "clone", "source", "twin", "--tpm", "copy", "--stopped")
        self.assertIn("same endorsement key", out)
        self.assertEqual(d.get("instance", "twin")["spec"]["tpmOrigin"], "TPM_ORIGIN_COPY")
        d.vallum("instance", "start", "twin", "--wait")
        self.boots_verified("twin")
        self.assertEqual(self.endorsement_key(d, "twin"), self.endorsement_key(d, "source"))
        d.vallum("instance", "stop", "twin", "--force", "--wait")

    def test_4_export_and_import_elsewhere(self):
        d = self.deployment
        ova = d.dir / "source.ova"
        passphrase = d.dir / "passphrase"
        passphrase.write_text("a long passphrase of this test\n")
        passphrase.chmod(0o600)
        out = d.vallum("instance", "export", "source", "-o", str(ova), "--tpm", "copy", "--passphrase-file", str(passphrase))
        self.assertIn("under the passphrase", out)
        self.assertNotIn(self.tpm_state("source")[64:128], ova.read_bytes())
        names = subprocess.run(["tar", "-tf", ova], check=True, capture_output=True, text=True).stdout.split()
        self.assertEqual(names[:3], ["source.ovf", "source.mf", "source-disk.qcow2"])
        with harness.Deployment() as other:
            other.add_agent()
            other.vallum("instance", "import", str(ova), "moved", "--tpm", "copy", "--passphrase-file", str(passphrase))
            other.wait_serial("moved", "vallum-guest: ready")
            measured = other.wait_verdict("moved")
            self.assertEqual(measured["verdict"], "BOOT_VERIFIED", measured)
            self.assertEqual(measured["pcr7Measured"], self.measured["pcr7Measured"])
            self.assertEqual(self.endorsement_key(other, "moved"), self.endorsement_key(d, "source"))

    def test_5_snapshot_that_is_used_stays_and_goes_with_its_last_user(self):
        d = self.deployment
        err = self.assert_refused(4, "snapshot", "delete", "snap")
        self.assertIn("instance fresh", err)
        digest = d.get("snapshot", "snap")["status"]["tpm"]["sha256"]
        d.vallum("instance", "delete", "fresh", "--wait")
        d.vallum("snapshot", "delete", "snap")
        self.assertEqual(list((d.dir / "controller/blobs").rglob(digest)), [])

    def test_6_trusted_instance_needs_a_trusted_pool_or_somebody_who_answers_for_it(self):
        d = self.deployment
        options = ["--image", "debian12", "--flavor", "tiny", "--trusted"]
        err = self.assert_refused(4, "instance", "create", "trusted", *options)
        self.assertIn("trusted_service=true conflicts with pool", err)
        d.vallum("instance", "create", "trusted", *options, "--allow-untrusted", "--boot-type", "bios", "--wait")
        event = self.events("instance.trust-overridden")[0]
        self.assertEqual((event["object"], event["user"]), ("instances/trusted", "admin"))

    def test_7_trusted_pool_takes_no_host_that_is_not_attested(self):
        d = self.deployment
        d.vallum("pool", "create", "attested", "--trusted")
        explained = d.vallum(
            "schedule", "explain", "--image", "debian12", "--flavor", "tiny", "--pool", "attested", "-o", "json"
        )
        self.assertEqual(json.loads(explained).get("chosen", ""), "")


if __name__ == "__main__":
    unittest.main()
