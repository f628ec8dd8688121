#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The life of an instance: seed, stop by the power button, start again, pause, reboot, crash, console, delete."""

import os
import pty
import select
import signal
import subprocess
import tempfile
import time
import unittest

import harness


class LifecycleTest(harness.EndToEndTest):
    @classmethod
    def set_up_deployment(cls, deployment):
        super().set_up_deployment(deployment)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as user_data:
            user_data.write("#cloud-config\nhostname: ignored\n")
            user_data.flush()
            deployment.create("vm", "--boot-type", "bios", "--network", "user", "--user-data", user_data.name)
        deployment.wait_serial("vm", "vallum-guest: ready")

    def phase(self):
        return self.deployment.get("instance", "vm")["status"]["phase"]

    def test_1_guest_reads_its_nocloud_seed(self):
        uid = self.deployment.get("instance", "vm")["metadata"]["uid"]
        self.assertRegex(
            self.deployment.serial("vm"), f'vallum-guest: seed instance-id: "?{uid}"? local-hostname: "?vm"?'
        )

    def test_2_qemu_runs_confined_as_a_user_of_its_own(self):
        if os.getuid() != 0:
            self.skipTest("the agent is not root")
        status = open(f"/proc/{self.deployment.qemu_pid('vm')}/status", encoding="ascii").read()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        self.assertNotIn("0", fields["Uid"].split())
        self.assertEqual(fields["NoNewPrivs"].strip(), "1")
        self.assertEqual(fields["Seccomp"].strip(), "2")
        self.assertEqual(int(fields["CapEff"], 16), 0)

    def test_3_pause_and_resume(self):
        self.deployment.vallum("instance", "pause", "vm", "--wait")
        self.assertEqual(self.phase(), "INSTANCE_PAUSED")
        self.deployment.vallum("instance", "resume", "vm", "--wait")
        self.assertEqual(self.phase(), "INSTANCE_RUNNING")

    def test_4_console_attaches_and_detaches(self):
        master, slave = pty.openpty()
        console = subprocess.Popen(
            [str(harness.BIN / "vallum"), "console", "vm"],
            stdin=slave, stdout=slave, stderr=slave, env=self.deployment.environment,
        )
        self.addCleanup(console.kill)
        seen = b""
        os.write(master, b"\necho con''sole-works\n")
        deadline = time.monotonic() + 30
        while b"console-works" not in seen and time.monotonic() < deadline:
            if select.select([master], [], [], 1)[0]:
                seen += os.read(master, 4096)
        self.assertIn(b"console-works", seen)
        os.write(master, b"\x1d")
        self.assertEqual(console.wait(10), 0)
        self.assertEqual(self.phase(), "INSTANCE_RUNNING")

    def test_5_stop_presses_the_power_button(self):
        self.deployment.vallum("instance", "stop", "vm", "--wait")
        self.assertEqual(self.phase(), "INSTANCE_STOPPED")
        self.assertIn("vallum-guest: power button", self.deployment.serial("vm"))
        self.assertIsNone(self.deployment.qemu_pid("vm"))

    def test_6_start_again_and_reboot(self):
        d = self.deployment
        # Each start has a serial log of its own; a reboot goes on in it.
        d.vallum("instance", "start", "vm", "--wait")
        d.until(lambda: d.serial("vm").count("vallum-guest: ready") == 1, "the guest booted again", 60)
        pid = d.qemu_pid("vm")
        d.vallum("instance", "reboot", "vm", "--wait")
        d.until(lambda: d.serial("vm").count("vallum-guest: ready") == 2, "the guest rebooted", 60)
        self.assertEqual(d.qemu_pid("vm"), pid)

    def test_7_crash_is_seen_and_its_reason_kept(self):
        d = self.deployment
        os.kill(d.qemu_pid("vm"), signal.SIGKILL)
        d.until(lambda: self.phase() == "INSTANCE_CRASHED", "the crash was noticed")
        status = d.get("instance", "vm")["status"]
        self.assertIn("9", status["lastExit"])
        d.vallum("instance", "start", "vm", "--wait")
        self.assertEqual(self.phase(), "INSTANCE_RUNNING")

    def test_8_wrong_names_and_states_have_their_exit_codes(self):
        self.assert_refused(3, "instance", "show", "nobody")
        self.assert_refused(2, "instance", "create", "Bad_Name", "--image", "debian12", "--flavor", "tiny")
        self.assert_refused(3, "instance", "create", "x", "--image", "nothing", "--flavor", "tiny")
        self.assert_refused(4, "instance", "create", "vm", "--image", "debian12", "--flavor", "tiny")

    def test_9_delete_leaves_no_trace_on_the_host(self):
        d = self.deployment
        folder = d.instance_dir("vm")
        self.assertTrue(folder.exists())
        d.vallum("instance", "delete", "vm", "--wait")
        self.assertFalse(folder.exists())
        self.assert_refused(3, "instance", "show", "vm")


if __name__ == "__main__":
    unittest.main()
