"""How much callers may cost one API process: places, bytes, calls in a second. Every answer beyond that is to come again."""
