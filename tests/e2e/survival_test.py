#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of an agent stops no guest; kill -9 of a controller loses nothing that was acknowledged."""

import json
import threading
import unittest

import harness


class SurvivalTest(harness.EndToEndTest):
    def test_killed_agent_adopts_its_running_guest(self):
        d = self.deployment
        d.create("kept", "--secure-boot", "required")
        before = d.wait_verdict("kept")
        self.assertEqual(before["verdict"], "BOOT_VERIFIED")
        pid, started = d.qemu_pid("kept"), d.get("instance", "kept")["status"]["startedAt"]
        d.agents["host1"].kill()
        self.assertEqual(d.qemu_pid("kept"), pid)
        d.agents["host1"].start()
        d.until(lambda: d.get("host", "host1")["status"]["state"] == "HOST_UP", "the host is back", 60)
        status = d.get("instance", "kept")["status"]
        self.assertEqual((status["phase"], status["startedAt"]), ("INSTANCE_RUNNING", started))
        self.assertEqual(d.qemu_pid("kept"), pid)
        self.assertEqual(status["boot"]["measured"]["verdict"], "BOOT_VERIFIED")
        # Adopted means in control, not only seen.
        d.vallum("instance", "stop", "kept", "--force", "--wait")
        self.assertIsNone(d.qemu_pid("kept"))

    def test_killed_controller_loses_nothing_acknowledged(self):
        d = self.deployment
        d.create("through", "--boot-type", "bios")
        pid = d.qemu_pid("through")
        acknowledged, stop = [], threading.Event()

        def write():
            number = 0
            while not stop.is_set() and number < 500:
                code, _, _ = d.try_vallum("pool", "create", f"pool{number}")
                if code == 0:
                    acknowledged.append(f"pool{number}")
                elif acknowledged:
                    return
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        d.until(lambda: len(acknowledged) >= 20, "some writes were acknowledged")
        d.controller.kill()
        writer.join()
        stop.set()
        self.assertTrue(harness.is_qemu(pid), "the guest ended with the controller")
        d.controller.start()
        d.until(lambda: d.try_vallum("pool", "list")[0] == 0, "the controller answers again")
        pools = {p["metadata"]["name"] for p in json.loads(d.vallum("pool", "list", "-o", "json"))["items"]}
        self.assertLessEqual(set(acknowledged), pools)
        d.until(lambda: d.get("host", "host1")["status"]["state"] == "HOST_UP", "the host came back by itself", 60)
        d.until(lambda: d.get("instance", "through")["status"]["phase"] == "INSTANCE_RUNNING", "it still runs")
        self.assertEqual(d.qemu_pid("through"), pid)
        d.vallum("instance", "stop", "through", "--force", "--wait")
        self.assertIsNone(d.qemu_pid("through"))


if __name__ == "__main__":
    unittest.main()
