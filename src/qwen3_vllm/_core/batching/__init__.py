"""Many texts: in few requests, for one server or several; what fails is found and left out."""
