"""The suite beside what others would use in its place, and its hot loops beside other ways."""
