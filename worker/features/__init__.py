"""Features: what is declared (spec), what is kept of each entity (state, table), its bytes (blob).

Core: no I/O, no clock. `worker.features.table` and what it needs import numba; import them late.
"""
