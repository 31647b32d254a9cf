"""Evaluation of a trained model: likelihoods, reconstructions, samples."""
