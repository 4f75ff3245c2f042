"""The HTTP service: pictures in, findings out; batches and decisions that survive; a page to work with."""
