# SPDX-License-Identifier: MIT
"""The kernel module, built for several kernels and tested on real ones in a virtual machine."""
