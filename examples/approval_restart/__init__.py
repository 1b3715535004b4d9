"""A letter waits for a person's yes while its process is killed, and is sent once."""
