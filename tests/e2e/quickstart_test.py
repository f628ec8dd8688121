#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The README's first command, as a newcomer runs it."""

import os
import subprocess
import tempfile
import unittest

import harness


class QuickstartTest(unittest.TestCase):
    def test_once_ends_with_a_verified_boot_and_leaves_no_process(self):
        if harness.BIN != harness.SOURCE / "build/release/bin":
            self.skipTest("quickstart builds and runs the release preset")
        with tempfile.TemporaryDirectory(prefix="vallum-qs-", dir="/var/tmp") as folder:
            os.chmod(folder, 0o711)
            environment = dict(
                os.environ, VALLUM_QUICKSTART_DIR=f"{folder}/state", VALLUM_QUICKSTART_PORT=str(harness.two_free_ports())
            )
            # It builds first what has changed.
            done = subprocess.run(
                [harness.SOURCE / "scripts/quickstart", "--once"],
                env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=800, check=False,
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertRegex(done.stdout, "(?i)verified")
            self.assertEqual(harness.processes_naming(folder), [])


if __name__ == "__main__":
    unittest.main()
