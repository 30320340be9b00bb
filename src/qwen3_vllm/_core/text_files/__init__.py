"""Files of texts: which there are, their records, and what keeps a record from being a text."""
