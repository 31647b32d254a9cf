"""What a trained model is worth: likelihoods, reconstructions, samples."""
