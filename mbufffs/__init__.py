# SPDX-License-Identifier: MIT
"""Named memory areas as files: create allocates, rm frees, mmap is the memory itself."""

__version__ = "0.1.0"
