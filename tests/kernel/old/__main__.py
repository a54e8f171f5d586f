# SPDX-License-Identifier: MIT
"""`python -m tests.kernel.old` builds the programs for the device, and says where they are."""

from tests.kernel.old import device_programs

print(device_programs())
