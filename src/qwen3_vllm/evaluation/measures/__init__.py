"""How good a set-up is, how sure that is, and which one to take."""
