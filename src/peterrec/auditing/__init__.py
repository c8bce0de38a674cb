"""The verb `audit`: what can be read about people from vectors and answers."""
