"""What a method is, how it is found by its name, and methods that run outside this process."""
