"""Faults on real servers: worker processes, Kafka and Valkey, and a reader that counts.

``python -m tests.chaos`` runs all of them and prints the table (``make chaos``); ``--list`` names
them. docs/delivery.md has a table as measured.
"""
