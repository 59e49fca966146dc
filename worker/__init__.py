"""riverwatch: exactly-once, real-time fraud and anomaly scoring with online River models."""

__version__ = "0.1.0"
