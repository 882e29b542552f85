"""Benchmarks: `python -m benchmarks NAME`, or `just bench NAME`. They start what they measure themselves."""
