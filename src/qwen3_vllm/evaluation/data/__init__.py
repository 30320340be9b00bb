"""The data of a user: what is searched, what is asked, and what is relevant."""
