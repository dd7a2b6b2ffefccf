"""What a study compares: the file, its sections, the arms and their prompts."""
