"""Reports for people: one HTML file each, with all that it shows inside."""
