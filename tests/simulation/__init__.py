"""The real worker over a log, a store and a clock that fail, scheduled by one seed.

`world` makes the input, `faults` the failing log and store, `schedule` runs workers against each
other, `oracle` says what must come of it, `mutants` breaks one protection each.
"""
