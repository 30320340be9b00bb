"""What the servers give: vectors, rankings and scores, each asked for once and kept."""
