"""Contracts: what is declared (settings), what moves (records), what is published (messages)."""
