#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An instance on a bridge: the host sees its frames, and its tap goes when it stops."""

import os
import pathlib
import subprocess
import unittest

import harness

BRIDGE = "vallumtest0"


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


class NetworkTest(harness.EndToEndTest):
    @classmethod
    def set_up_deployment(cls, deployment):
        if os.getuid() != 0:
            raise unittest.SkipTest("making a bridge takes root")
        if ip("link", "add", BRIDGE, "type", "bridge").returncode != 0:
            raise unittest.SkipTest("this kernel makes no bridges")
        cls.addClassCleanup(ip, "link", "delete", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        super().set_up_deployment(deployment)

    def ports(self):
        return list(pathlib.Path(f"/sys/class/net/{BRIDGE}/brif").iterdir())

    def test_bridged_instance_has_a_port_on_the_bridge_while_it_runs(self):
        d = self.deployment
        self.assertIn(BRIDGE, d.get("host", "host1")["status"]["capabilities"].get("bridges", []))
        d.create("net1", "--boot-type", "bios", "--network", f"bridge={BRIDGE}")
        self.assertEqual(len(self.ports()), 1)
        d.wait_serial("net1", "vallum-guest: ready")
        d.vallum("instance", "stop", "net1", "--force", "--wait")
        d.until(lambda: not self.ports(), "the tap is gone")

    def test_bridge_that_no_host_has_is_explained(self):
        d = self.deployment
        code, out, err = d.try_vallum(
            "instance", "create", "net2", "--image", "debian12", "--flavor", "tiny", "--boot-type", "bios",
            "--network", "bridge=nowhere0", "--wait", "--timeout", "20",
        )
        self.assertNotEqual(code, 0, out)
        self.assertIn("nowhere0", err)


if __name__ == "__main__":
    unittest.main()
