"""What is here: the hardware, the installed vLLM, the checkpoint's files."""
