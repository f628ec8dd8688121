#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is said of a boot after something changed on the disk or in the keys of an instance."""

import pathlib
import tempfile
import unittest

import harness
from guest_disk import Keys, changing_disk_of, run


def other_kernel(kernel, keys):
    """The same kernel with another text in its part for BIOS, signed by the test's own key instead of Debian's."""
    run("sbattach", "--remove", kernel)
    content = kernel.read_bytes()
    at = content.index(b"No setup signature")
    kernel.write_bytes(content[: at + 3] + b"S" + content[at + 4 :])
    return keys.sign(kernel)


class BootVerdictTest(harness.EndToEndTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)

    def verified(self, name, *options):
        self.deployment.create(name, "--secure-boot", "required", *options)
        measured = self.deployment.wait_verdict(name)
        self.assertEqual(measured["verdict"], "BOOT_VERIFIED", measured)
        self.deployment.vallum("instance", "stop", name, "--force", "--wait")

    def until_over(self, name):
        """A boot is called DIVERGED as soon as it is; what it was is known when the operating system has taken over."""
        d = self.deployment
        d.until(lambda: d.try_vallum("instance", "baseline", "diff", name)[0] == 10, f"the boot of {name} is over",
                harness.BOOT_TIMEOUT)

    def accept(self, name):
        """Takes the boot as it is, once it is over and its host has judged it."""
        d = self.deployment
        d.until(lambda: d.try_vallum("instance", "baseline", "accept", name)[0] == 0, f"the boot of {name} is accepted",
                harness.BOOT_TIMEOUT)

    def boot_again(self, name):
        self.deployment.vallum("instance", "start", name, "--wait")
        return self.deployment.wait_verdict(name)

    def test_changed_grub_configuration_diverges_and_can_be_accepted(self):
        d = self.deployment
        self.verified("config")
        with changing_disk_of(d, "config") as disk:
            text = disk.take("/EFI/debian/grub.cfg").read_text()
            disk.put_text(text.replace("quiet", "quiet init=/bin/sh"), "/EFI/debian/grub.cfg")
        measured = self.boot_again("config")
        self.assertEqual(measured["verdict"], "BOOT_DIVERGED", measured)
        self.assertIn(measured["firstDifference"]["pcr"], (8, 9), measured)
        self.assertIn("grub.cfg", str(measured))
        shown = d.vallum("instance", "show", "config")
        self.assertIn("grub.cfg", shown)
        code, out, err = d.try_vallum("instance", "watch-boot", "config", "--timeout", "10")
        self.assertNotEqual(code, 0, out + err)
        self.assertIn("grub", out)
        self.until_over("config")
        self.assertIn("init=/bin/sh", str(d.get("instance", "config")["status"]["boot"]["measured"]))
        code, out, err = d.try_vallum("instance", "baseline", "diff", "config")
        self.assertEqual(code, 10, out + err)  # as diff does when there is one
        self.assertIn("init=/bin/sh", out)
        self.accept("config")
        self.assertEqual(d.wait_verdict("config")["verdict"], "BOOT_VERIFIED")
        d.vallum("instance", "stop", "config", "--force", "--wait")
        self.assertEqual(self.boot_again("config")["verdict"], "BOOT_VERIFIED")

    def test_changed_kernel_diverges_and_is_accepted_by_policy_for_its_signer(self):
        d = self.deployment
        keys = Keys(self.folder, "builder")
        d.vallum("keyset", "create", "builder", "--from", "microsoft", "--db", str(keys.certificate("db")))
        self.verified("kernel", "--key-set", "builder")
        with changing_disk_of(d, "kernel") as disk:
            disk.put(other_kernel(disk.take("/vmlinuz"), keys), "/vmlinuz")
        measured = self.boot_again("kernel")
        self.assertEqual(measured["verdict"], "BOOT_DIVERGED", measured)
        # GRUB measures the file before it starts the program.
        self.assertIn(measured["firstDifference"]["pcr"], (4, 9), measured)
        self.assertIn("vmlinuz", str(measured["firstDifference"]))
        d.vallum("pool", "update", "default", "--accept-signed-updates", "true")
        self.addCleanup(d.vallum, "pool", "update", "default", "--accept-signed-updates", "false")
        d.until(lambda: d.get("instance", "kernel")["status"]["boot"]["measured"]["verdict"] == "BOOT_VERIFIED",
                "the policy accepts what the key set's signer signed", harness.BOOT_TIMEOUT)
        accepted = "\n".join(d.get("instance", "kernel")["status"]["boot"]["measured"]["acceptedChanges"])
        self.assertIn("vmlinuz", accepted)
        self.assertIn("CN=builder db", accepted)

    def test_changed_keys_diverge_in_pcr_7_and_are_named(self):
        d = self.deployment
        keys = Keys(self.folder)
        d.vallum("keyset", "create", "wider", "--from", "microsoft", "--db", str(keys.certificate("db")))
        store = self.folder / "wider.fd"
        d.vallum("keyset", "export", "wider", "--format", "store", "-o", str(store))
        self.verified("keys")
        (d.instance_dir("keys") / "vars.fd").write_bytes(store.read_bytes())
        measured = self.boot_again("keys")
        self.assertEqual(measured["verdict"], "BOOT_DIVERGED", measured)
        self.assertEqual(measured["firstDifference"]["pcr"], 7, measured)
        self.assertIn("db", measured["firstDifference"]["expectedWhat"], measured)
        self.assertIn("wider", measured["firstDifference"].get("measuredWhat", ""), measured["firstDifference"])

    def test_isolated_instance_gets_its_network_back_when_its_boot_is_accepted(self):
        d = self.deployment
        d.vallum("pool", "update", "default", "--on-diverged", "isolate")
        self.addCleanup(d.vallum, "pool", "update", "default", "--on-diverged", "report")
        self.verified("apart")
        with changing_disk_of(d, "apart") as disk:
            disk.put_text(disk.take("/EFI/debian/grub.cfg").read_text() + "\n# note\n", "/EFI/debian/grub.cfg")
        self.assertEqual(self.boot_again("apart")["verdict"], "BOOT_DIVERGED")
        d.until(lambda: d.get("instance", "apart")["status"].get("isolated"), "its links are down")
        self.accept("apart")
        d.until(lambda: not d.get("instance", "apart")["status"].get("isolated"), "its links are up")


if __name__ == "__main__":
    unittest.main()
