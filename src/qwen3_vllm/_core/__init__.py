"""What the public names are made of; nothing outside the package imports it."""
