#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every conflict of the boot mode's precedence table is refused with both settings named, and leaves nothing behind."""

import json
import unittest

import harness

# image properties, flavor extra spec, options of the request, and what the refusal must name.
CONFLICTS = [
    (["os_secure_boot=required"], None, ["--boot-type", "bios"], ["os_secure_boot=required", "bios"]),
    (["os_secure_boot=required"], None, ["--property", "boottype=BIOS"], ["os_secure_boot=required", "boottype=BIOS"]),
    (
        ["os_secure_boot=required"], None, ["--boot-type", "uefi", "--boot-mode", "legacy"],
        ["os_secure_boot=required", "legacy"],
    ),
    (
        ["os_secure_boot=required"], None, ["--property", "boottype=UEFI", "--property", "bootmode=LEGACY"],
        ["os_secure_boot=required", "bootmode=LEGACY"],
    ),
    (["os_secure_boot=required"], None, ["--secure-boot", "disabled"], ["os_secure_boot=required", "disabled"]),
    (
        ["os_secure_boot=required"], None, ["--property", "security.secureboot=false"],
        ["os_secure_boot=required", "security.secureboot=false"],
    ),
    ([], "os:secure_boot=required", ["--boot-type", "bios"], ["os:secure_boot=required", "bios"]),
    (
        [], "os:secure_boot=required", ["--boot-type", "uefi", "--boot-mode", "legacy"],
        ["os:secure_boot=required", "legacy"],
    ),
    (["hw_firmware_type=bios"], "os:secure_boot=required", [], ["os:secure_boot=required", "hw_firmware_type=bios"]),
    ([], None, ["--boot-type", "bios", "--boot-mode", "secure"], ["bios", "secure"]),
    ([], None, ["--property", "boottype=UEFI"], ["boottype=UEFI", "bootmode"]),
    ([], None, ["--secure-boot", "required", "--tpm", "none"], ["none", "required"]),
]

# Properties that contradict each other or mean nothing: the image itself is refused.
BAD_IMAGES = [
    ["os_secure_boot=required", "hw_firmware_type=bios"],
    ["os_secure_boot=required", "hw_machine_type=pc"],
    ["hw_tpm_version=1.2"],
    ["os_secure_boot=sometimes"],
]


class BootConflictsTest(harness.EndToEndTest):
    @classmethod
    def set_up_deployment(cls, deployment):
        deployment.add_agent()
        deployment.vallum("flavor", "create", "plain", "--vcpus", "1", "--memory", "256M")
        deployment.vallum(
            "flavor", "create", "secure", "--vcpus", "1", "--memory", "256M", "--extra-spec", "os:secure_boot=required"
        )
        for number, (properties, _, _, _) in enumerate(CONFLICTS):
            deployment.import_guest(f"image{number}", properties=properties)

    def test_each_conflict_names_both_settings_and_a_fix(self):
        for number, (_, extra_spec, options, named) in enumerate(CONFLICTS):
            with self.subTest(number=number, options=options):
                flavor = "secure" if extra_spec else "plain"
                err = self.assert_refused(
                    2, "instance", "create", f"vm{number}", "--image", f"image{number}", "--flavor", flavor, *options
                )
                for word in named:
                    self.assertIn(word.lower(), err.lower())
                self.assertIn("fix:", err)
        self.assertEqual(json.loads(self.deployment.vallum("instance", "list", "-o", "json")).get("items", []), [])

    def test_image_that_contradicts_itself_is_refused_with_what_it_says(self):
        for number, properties in enumerate(BAD_IMAGES):
            with self.subTest(properties=properties):
                options = [word for p in properties for word in ("--property", p)]
                err = self.assert_refused(
                    2, "image", "import", str(harness.GUEST), "--name", f"bad{number}", "--disk-format", "gpt", *options
                )
                for word in properties:
                    self.assertIn(word, err)
                self.assertIn("fix:", err)
                self.assert_refused(3, "image", "show", f"bad{number}")


if __name__ == "__main__":
    unittest.main()
