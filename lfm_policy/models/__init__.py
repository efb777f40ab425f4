"""Models: what a run trains and a directory holds; policies under observations, densities of vectors."""
