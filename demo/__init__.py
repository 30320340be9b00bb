"""The demo: its corpus and questions, its two small checkpoints, and how they were trained and scored."""
