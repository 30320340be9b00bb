"""How a server is reached: the loop of the process, its connections, and what comes on them."""
