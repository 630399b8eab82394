"""What is measured of a network: its fastest engine, its halo, its memory and time; kept in the user's cache."""
