"""Query and documents in, P(yes) out."""
