"""The report page: one static folder that opens from disk and needs no network."""
