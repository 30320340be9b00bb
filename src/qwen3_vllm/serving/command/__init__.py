"""From options, checkpoint and machine to the command line of vLLM. Pure."""
