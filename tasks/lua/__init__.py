"""One atomic state change of Redis per file; tasks/scripts.py loads them behind prelude.lua."""
