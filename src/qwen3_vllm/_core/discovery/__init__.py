"""What a server can do, found out by asking it."""
