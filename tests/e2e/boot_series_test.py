#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Twenty boots of one instance: every one is verified, so that no rule is one of chance."""

import unittest

import harness

BOOTS = 20


class BootSeriesTest(harness.EndToEndTest):
    def test_every_boot_of_a_series_is_verified(self):
        d = self.deployment
        d.create("again", "--secure-boot", "required", "--network", "user")
        for boot in range(BOOTS):
            with self.subTest(boot=boot):
                measured = d.wait_verdict("again")
                self.assertEqual(measured["verdict"], "BOOT_VERIFIED", measured)
                self.assertNotIn("acceptedChanges", measured)
                d.vallum("instance", "stop", "again", "--force", "--wait")
                d.vallum("instance", "start", "again", "--wait")


if __name__ == "__main__":
    unittest.main()
