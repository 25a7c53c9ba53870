"""The HTTP edge: routes, what surrounds every request, and the reference pages."""
