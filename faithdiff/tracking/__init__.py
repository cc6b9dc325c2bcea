"""What DVC and Snakemake remember of a study, and the check of all its files at once."""
