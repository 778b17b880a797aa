"""``python -m qkernels bench``: int8 products against other libraries and against the machine's limits.

See README.md in this folder.
"""
