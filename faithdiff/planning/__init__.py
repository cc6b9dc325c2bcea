"""What a study will do before it starts: checks, jobs, hours, memory, disk; and benchmarks."""
