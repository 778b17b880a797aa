"""``python -m qkernels bench``: low-bit products against other libraries and against the machine's limits.

See README.md in this folder.
"""
