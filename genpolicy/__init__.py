"""Train, evaluate and compare generative policies on offline reinforcement-learning data sets."""
