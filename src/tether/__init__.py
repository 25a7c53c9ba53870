"""Tether Partner API: chargers, vehicles and the charging events that happen at them."""

__version__ = "0.2.0"
