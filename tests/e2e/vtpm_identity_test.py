#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A vTPM's identity as somebody else checks it: quotes by tpm2_checkquote, the EK certificate by openssl."""

import base64
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import tempfile
import time
import unittest

import harness

EK_CERTIFICATE_INDEX = "0x01c0000a"


def run(*words, environment=None):
    return subprocess.run(
        [str(w) for w in words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )


class VtpmIdentityTest(harness.EndToEndTest):
    @classmethod
    def set_up_deployment(cls, deployment):
        for tool in ("tpm2_checkquote", "tpm2_nvread", "openssl", "swtpm"):
            if shutil.which(tool) is None:
                raise unittest.SkipTest(f"{tool} is missing: run scripts/install-deps")
        super().set_up_deployment(deployment)
        deployment.create("web1", "--boot-type", "uefi", "--boot-mode", "legacy", "--tpm", "tpm-crb")
        deployment.until(lambda: cls.vtpm().get("ekCertificate"), "web1 has an EK certificate")
        # On a very slow machine the certificate comes after the guest: then it is there at the next start.
        for _ in range(3):
            if "note" in cls.vtpm():
                deployment.vallum("instance", "stop", "web1", "--force", "--wait")
                deployment.vallum("instance", "start", "web1", "--wait")

    def setUp(self):
        # A test before may have started it anew; shim extends PCR 7 as well, after the firmware.
        self.deployment.until(
            lambda: self.measured().get("verdict", "BOOT_PENDING") != "BOOT_PENDING", "the boot of web1 is over",
            harness.BOOT_TIMEOUT,
        )

    @classmethod
    def status(cls):
        return cls.deployment.get("instance", "web1")["status"]

    @classmethod
    def vtpm(cls):
        return cls.status().get("vtpm", {})

    @classmethod
    def measured(cls):
        return cls.status()["boot"].get("measured", {})

    def quote(self, folder, nonce, *options):
        out = self.deployment.vallum("instance", "quote", "web1", "--nonce", nonce, "--out", str(folder), *options)
        # The command that it prints is the one that verifies.
        return next(line.strip() for line in out.splitlines() if line.strip().startswith("tpm2_checkquote"))

    def test_checkquote_accepts_the_quote_with_its_nonce_and_no_other(self):
        for pcrs in ([], ["--pcrs", "sha256:0,1,2,3,4,5,6,7,8,9,10,11,14,23"]):
            with tempfile.TemporaryDirectory() as folder:
                nonce = secrets.token_hex(32)
                command = self.quote(folder, nonce, *pcrs)
                good = run("sh", "-c", command)
                self.assertEqual(good.returncode, 0, good.stderr)
                wrong = run("sh", "-c", command.replace(nonce, secrets.token_hex(32)))
                self.assertNotEqual(wrong.returncode, 0)
                changed = pathlib.Path(folder) / "quote.pcrs"
                content = bytearray(changed.read_bytes())
                content[132 + 4 + 4 + 2] ^= 1  # in the first PCR's value
                changed.write_bytes(content)
                self.assertNotEqual(run("sh", "-c", command).returncode, 0)

    def test_quote_is_about_the_pcrs_that_firmware_measured(self):
        d = self.deployment
        document = json.loads(
            d.vallum("instance", "quote", "web1", "--nonce", "00", "--pcrs", "sha256:7", "-o", "json")
        )
        self.assertEqual([v["digest"] for v in document["values"]], [self.measured()["pcr7Measured"]])
        self.assertEqual(document["akPublicPem"], self.vtpm()["akPublic"])
        self.assertEqual(base64.b64decode(document["quoted"])[:4], b"\xffTCG")
        events = json.loads(d.vallum("event", "list", "-o", "json"))
        kinds = [e["kind"] for e in events["items"]]
        self.assertIn("instance.quoted", kinds)
        self.assertIn("instance.vtpm-certified", kinds)

    def test_refusals_say_why(self):
        self.assert_refused(2, "instance", "quote", "web1", "--nonce", "xyz", "--out", "/nonexistent")
        err = self.assert_refused(2, "instance", "quote", "web1", "--nonce", "00", "--pcrs", "sha256:99", "-o", "json")
        self.assertIn("0 to 23", err)
        err = self.assert_refused(2, "instance", "quote", "web1", "--nonce", "00", "--pcrs", "sha1:0", "-o", "json")
        self.assertIn("no active PCR bank sha1", err)

    def test_certificate_verifies_names_the_instance_and_is_in_the_tpm(self):
        d = self.deployment
        pem = self.vtpm()["ekCertificate"]
        uid = d.get("instance", "web1")["metadata"]["uid"]
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            certificate = folder / "ek.pem"
            certificate.write_text(pem)
            verified = run("openssl", "verify", "-x509_strict", "-CAfile", d.dir / "controller/ca.pem", certificate)
            self.assertEqual(verified.returncode, 0, verified.stdout + verified.stderr)
            subject = run("openssl", "x509", "-in", certificate, "-noout", "-subject", "-ext",
                          "extendedKeyUsage,subjectAltName").stdout.decode()
            for part in ("CN = web1", uid, "2.23.133.8.1", "DirName"):
                self.assertIn(part, subject)
            key = run("openssl", "x509", "-in", certificate, "-noout", "-pubkey").stdout.decode()
            self.assertEqual(key, self.vtpm()["ekPublic"])
            der = run("openssl", "x509", "-in", certificate, "-outform", "DER").stdout
            self.assertEqual(self.in_the_tpm(folder), der)

    def in_the_tpm(self, folder):
        """What a guest finds in the NV index: read with tpm2-tools from the state that the TPM left."""
        d = self.deployment
        d.vallum("instance", "stop", "web1", "--force", "--wait")
        self.addCleanup(d.vallum, "instance", "start", "web1", "--wait")
        state = folder / "tpm"
        shutil.copytree(d.instance_dir("web1") / "tpm", state)
        port = harness.two_free_ports()
        swtpm = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", f"type=tcp,port={port}",
             "--ctrl", f"type=tcp,port={port + 1}", "--flags", "not-need-init,startup-clear"],
            stdin=subprocess.DEVNULL,
        )
        try:
            tools = dict(os.environ, TPM2TOOLS_TCTI=f"swtpm:host=127.0.0.1,port={port}")
            deadline = time.monotonic() + 20
            while True:
                read = run("tpm2_nvread", EK_CERTIFICATE_INDEX, environment=tools)
                if read.returncode == 0 or time.monotonic() > deadline:
                    self.assertEqual(read.returncode, 0, read.stderr)
                    return read.stdout
                time.sleep(0.2)
        finally:
            swtpm.kill()
            swtpm.wait()

    def test_stopped_instance_is_refused_and_keeps_its_identity(self):
        d = self.deployment
        before = self.vtpm()
        d.vallum("instance", "stop", "web1", "--force", "--wait")
        self.addCleanup(d.vallum, "instance", "start", "web1", "--wait")
        err = self.assert_refused(4, "instance", "quote", "web1", "--nonce", "00", "-o", "json")
        self.assertIn("does not run", err)
        self.assertEqual(self.vtpm(), before)


if __name__ == "__main__":
    unittest.main()
