"""A server as a process: started, watched, stopped."""
