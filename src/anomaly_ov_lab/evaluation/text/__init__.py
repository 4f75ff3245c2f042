"""What a model says about pictures, measured: yes or no, free text, multiple choice."""
