# SPDX-License-Identifier: MIT
"""Sequences of calls that are done on tmpfs and on a mount, to be compared; no test is in here."""
