"""One atomic state change of Redis per file; tasks/scripts.py loads them behind fair.lua and prelude.lua."""
