"""The degradation of HQ images into LQ images, by level."""
