"""What a person does with a data folder while, or although, a master may be running on it."""
