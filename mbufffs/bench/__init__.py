# SPDX-License-Identifier: MIT
"""What is measured, and how: operations on files, of any file system, beside each other."""
