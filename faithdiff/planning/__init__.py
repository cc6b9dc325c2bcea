"""What a study will do and how far it is: checks, jobs, hours, memory, disk; and benchmarks."""
