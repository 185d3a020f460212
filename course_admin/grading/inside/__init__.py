"""What runs inside the sandbox beside submissions. These files stand alone: they import nothing of the course."""
