"""Real servers for tests, benchmarks and people without Docker: Kafka from its jars, Valkey.

``python -m tests.services kafka --port 9092`` or ``valkey --port 6379`` runs one until Ctrl-C.
"""
