"""Measurements that take minutes and prove nothing by passing: `make bench-...`."""
