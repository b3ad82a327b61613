"""A trained model as one file that runs without depthseg: ONNX or a program of `torch.export`."""
